package harden

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// The real-time signals a program may use: glibc and musl keep 32 and 33, and
// musl 34 as well, but every tool calls 34 SIGRTMIN (signal(7)).
const (
	rtMin = 34
	rtMax = 64
)

// Signal is a signal by name or number: "TERM", "SIGTERM", "term", "15",
// "RTMIN+3", "SIGRTMAX-1". Errors are Invalid, in Docker's words.
func Signal(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil {
		if n < 1 || n > rtMax {
			return 0, noSignal(name)
		}
		return syscall.Signal(n), nil
	}
	upper := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	switch upper {
	case "CLD":
		upper = "CHLD"
	case "IOT":
		upper = "ABRT"
	case "POLL":
		upper = "IO"
	}
	if sig := unix.SignalNum("SIG" + upper); sig != 0 {
		return sig, nil
	}
	if sig, ok := realTime(upper); ok {
		return sig, nil
	}
	return 0, noSignal(name)
}

func noSignal(name string) error {
	return fault.Say(fault.Invalid, "invalid signal: "+name)
}

func realTime(name string) (syscall.Signal, bool) {
	base, sign := rtMin, 1
	rest, ok := strings.CutPrefix(name, "RTMIN")
	if !ok {
		if rest, ok = strings.CutPrefix(name, "RTMAX"); !ok {
			return 0, false
		}
		base, sign = rtMax, -1
	}
	if rest == "" {
		return syscall.Signal(base), true
	}
	if rest[0] != "-+"[(sign+1)/2] {
		return 0, false
	}
	n, err := strconv.ParseUint(rest[1:], 10, 8)
	if err != nil || n > rtMax-rtMin {
		return 0, false
	}
	return syscall.Signal(base + sign*int(n)), true
}

// SignalName is the name of a signal: "SIGTERM", "SIGRTMIN+3", or the number.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	switch {
	case sig == rtMin:
		return "SIGRTMIN"
	case sig == rtMax:
		return "SIGRTMAX"
	case sig > rtMin && sig < rtMax:
		return "SIGRTMIN+" + strconv.Itoa(int(sig)-rtMin)
	}
	return strconv.Itoa(int(sig))
}
