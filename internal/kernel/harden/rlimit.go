package harden

import "strings"

// rlimits are the names of setrlimit(2), by number, in lower case and without
// RLIMIT_. The numbers are those of every architecture but alpha, mips and
// sparc (asm-generic/resource.h). A table, never written.
var rlimits = [...]string{"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending",
	"msgqueue", "nice", "rtprio", "rttime"}

// Rlimit is the number of a resource limit by name ("nofile", "RLIMIT_NOFILE").
func Rlimit(name string) (number int, ok bool) {
	name = strings.TrimPrefix(strings.ToLower(name), "rlimit_")
	for n, known := range rlimits {
		if name == known {
			return n, true
		}
	}
	return 0, false
}

// RlimitName is the name of a resource limit ("nofile"); false when there is
// no such limit.
func RlimitName(number int) (string, bool) {
	if number < 0 || number >= len(rlimits) {
		return "", false
	}
	return rlimits[number], true
}
