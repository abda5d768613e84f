// Package fast is the short way of `fief run` and `fief exec`: it sends the
// command line unread to the daemon, before any flag library, template, JSON
// or the net package is touched, and then waits for the exit code. The long
// way uses its second half, Follow.
package fast

import (
	"strings"
)

// Line is a command line that can go the short way.
type Line struct {
	Host   string   // of --host; empty: not given
	Exec   bool     // the command is exec, else run
	Args   []string // the words after the command
	Detach bool
	Caller bool // the container may get ids of whoever asks
}

// treat says what Scan does with a flag.
type treat uint8

const (
	long     treat = iota // only the long way can do it
	plain                 // takes no value
	detach                // takes no value, and the client prints the id
	value                 // takes a value
	env                   // takes a value, which must bring its own contents
	security              // takes a value, which must not name a file
	identity              // takes a value, which may mean the caller's ids
)

// Scan looks whether a command line (without the program's name) can go the
// short way. It need not know whether the line is right: the daemon parses it.
// What it does not know goes the long way.
func Scan(words []string) (Line, bool) {
	var l Line
	for len(words) > 0 {
		switch w := words[0]; {
		case w == "run" || w == "exec":
			l.Exec, l.Args = w == "exec", words[1:]
			return l, l.flags()
		case (w == "--host" || w == "-H") && len(words) > 1:
			l.Host, words = words[1], words[2:]
		case strings.HasPrefix(w, "--host="):
			l.Host, words = w[len("--host="):], words[1:]
		default:
			return Line{}, false
		}
	}
	return Line{}, false
}

// flags walks over the flags before the first plain word.
func (l *Line) flags() bool {
	for i := 0; i < len(l.Args); i++ {
		w := l.Args[i]
		if len(w) < 2 || w[0] != '-' {
			return true
		}
		if w == "--" {
			return i+1 < len(l.Args)
		}
		var skip int
		var ok bool
		if w[1] == '-' {
			skip, ok = l.longFlag(w[2:], l.Args[i+1:])
		} else {
			skip, ok = l.shortFlags(w[1:], l.Args[i+1:])
		}
		if !ok {
			return false
		}
		i += skip
	}
	return false
}

// longFlag judges --w, and how many of the following words are its value.
func (l *Line) longFlag(w string, next []string) (skip int, ok bool) {
	name, val, given := strings.Cut(w, "=")
	t := l.treat(name)
	switch {
	case t == long:
		return 0, false
	case t == plain || t == detach:
		l.Detach = l.Detach || t == detach
		return 0, !given
	case given:
		return 0, l.fits(t, val)
	case len(next) == 0:
		return 0, false
	}
	return 1, l.fits(t, next[0])
}

// shortFlags judges one word of short flags: -di, -eA=B, -w /tmp.
func (l *Line) shortFlags(w string, next []string) (skip int, ok bool) {
	for i := range len(w) {
		switch t := l.treat(longName(w[i])); {
		case t == long:
			return 0, false
		case t == plain || t == detach:
			l.Detach = l.Detach || t == detach
		case i+1 < len(w):
			return 0, w[i+1] != '=' && l.fits(t, w[i+1:])
		case len(next) == 0:
			return 0, false
		default:
			return 1, l.fits(t, next[0])
		}
	}
	return 0, true
}

// fits reports whether a value can be understood without the client.
func (l *Line) fits(t treat, val string) bool {
	switch t {
	case env:
		return strings.IndexByte(val, '=') > 0
	case security:
		return val == "seccomp=unconfined" || strings.HasPrefix(val, "no-new-privileges")
	case identity:
		kind, _, _ := strings.Cut(val, ":")
		switch kind {
		case "", "auto", "host", "private", "container", "ns":
		default:
			l.Caller = true
		}
	}
	return true
}

func (l *Line) treat(name string) treat {
	if l.Exec {
		return execFlag(name)
	}
	return runFlag(name)
}

// runFlag must agree with cmdline.RunFlags; a test compares them.
func runFlag(name string) treat {
	switch name {
	case "detach":
		return detach
	case "interactive", "rm", "read-only", "init", "no-healthcheck", "privileged", "publish-all":
		return plain
	case "env":
		return env
	case "security-opt":
		return security
	case "userns":
		return identity
	case "attach", "workdir", "user", "group-add", "entrypoint", "ulimit", "stop-signal", "stop-timeout",
		"hostname", "domainname", "cap-add", "cap-drop", "network", "net", "uidmap", "gidmap",
		"subuidname", "subgidname", "pid", "ipc", "uts", "cgroupns",
		"volume", "volumes-from", "volume-driver", "mount", "tmpfs", "shm-size", "storage-opt", "name", "label", "annotation", "platform",
		"log-driver", "log-opt", "runtime", "restart",
		"publish", "expose", "network-alias", "net-alias", "ip", "ip6", "mac-address", "link", "add-host", "dns", "dns-search", "dns-option", "dns-opt",
		"health-cmd", "health-interval", "health-retries", "health-timeout", "health-start-period", "health-start-interval":
		return value
	}
	return long
}

// execFlag must agree with cmdline.ExecFlags.
func execFlag(name string) treat {
	switch name {
	case "detach":
		return detach
	case "interactive", "privileged":
		return plain
	case "env":
		return env
	case "user", "workdir":
		return value
	}
	return long
}

func longName(short byte) string {
	switch short {
	case 'a':
		return "attach"
	case 'd':
		return "detach"
	case 'e':
		return "env"
	case 'h':
		return "hostname"
	case 'i':
		return "interactive"
	case 'l':
		return "label"
	case 'p':
		return "publish"
	case 'P':
		return "publish-all"
	case 'u':
		return "user"
	case 'v':
		return "volume"
	case 'w':
		return "workdir"
	}
	return ""
}
