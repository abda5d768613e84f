// Command hoard takes one kind of kernel resource until the kernel refuses, or
// until it has as many as its second argument says, prints "got N" with the
// kernel's answer, and keeps all of it until it is killed. With -quit it ends.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// taker returns a function that takes one more of a resource and keeps it; n
// counts from 0. It is nil for an unknown resource.
func taker(resource string) func(n int) error {
	switch resource {
	case "files":
		return func(int) error { return fd(unix.Open("/dev/null", unix.O_RDONLY, 0)) }
	case "inotify-instances":
		return func(int) error { return fd(unix.InotifyInit1(0)) }
	case "inotify-watches":
		return new(watcher).watch
	case "fanotify-groups":
		return func(int) error { return fd(unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID, 0)) }
	case "mqueue":
		return queue
	case "sigpending":
		return signal
	case "memlock":
		return lock
	case "nproc":
		return func(int) error { return process() }
	case "keys":
		return func(n int) error { return key(n, 1) }
	case "key-bytes":
		return func(n int) error { return key(n, 1000) }
	}
	return nil
}

func main() {
	quit := flag.Bool("quit", false, "end instead of keeping it")
	flag.Parse()
	take := taker(flag.Arg(0))
	most, err := -1, error(nil)
	if flag.NArg() == 2 {
		most, err = strconv.Atoi(flag.Arg(1))
	}
	if take == nil || flag.NArg() > 2 || err != nil {
		fmt.Fprintln(os.Stderr, "usage: hoard [-quit] RESOURCE [AT-MOST]")
		os.Exit(2)
	}
	// Signals go to this thread; and when there can be no more processes the
	// runtime must not want another thread, which it could not live without.
	runtime.LockOSThread()
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	n := 0
	for n != most && err == nil {
		if err = take(n); err == nil {
			n++
		}
	}
	line := fmt.Appendf(nil, "got %d %s: %v\n", n, flag.Arg(0), err)
	syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(&line[0])), uintptr(len(line)))
	for !*quit {
		syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

func fd(_ int, err error) error { return err }
