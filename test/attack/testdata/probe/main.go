// The probe prints what a process is and no file in /proc tells, one thing a
// line. It has to be executed itself: some of it a fork does not hand on.
package main

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// The numbers are those of prctl(2), keyctl(2) and ioprio_set(2).
const (
	getDeathSignal = 2
	getDumpable    = 3
	getSecurebits  = 27
	getSubreaper   = 37
	keyringID      = 0
	describeKey    = 6
	session        = -3
	process        = 1
	sysKeyctl      = 250
	sysIoprioGet   = 252
)

// The death signal is the thread's that was executed.
func init() { runtime.LockOSThread() }

func main() {
	fmt.Println("parent death signal:", written(getDeathSignal))
	fmt.Println("subreaper:", written(getSubreaper))
	fmt.Println("dumpable:", returned(syscall.SYS_PRCTL, getDumpable, 0, 0))
	fmt.Println("securebits:", returned(syscall.SYS_PRCTL, getSecurebits, 0, 0))
	fmt.Println("priority:", returned(syscall.SYS_GETPRIORITY, 0, 0, 0))
	fmt.Println("io priority:", returned(sysIoprioGet, process, 0, 0))
	fmt.Println("session keyring:", keyring())
}

// written is what a prctl writes to where its argument points to.
func written(option uintptr) string {
	var value int32
	if _, _, errno := syscall.Syscall(syscall.SYS_PRCTL, option, uintptr(unsafe.Pointer(&value)), 0); errno != 0 {
		return errno.Error()
	}
	return fmt.Sprint(value)
}

func returned(nr, a, b, c uintptr) string {
	r, _, errno := syscall.Syscall(nr, a, b, c)
	if errno != 0 {
		return errno.Error()
	}
	return fmt.Sprint(r)
}

// keyring describes the session keyring.
func keyring() string {
	special := session
	id, _, errno := syscall.Syscall(sysKeyctl, keyringID, uintptr(special), 0)
	if errno != 0 {
		return errno.Error()
	}
	text := make([]byte, 256)
	n, _, errno := syscall.Syscall6(sysKeyctl, describeKey, id, uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)), 0, 0)
	if errno != 0 {
		return errno.Error()
	}
	fields := strings.Split(strings.TrimRight(string(text[:min(int(n), len(text))]), "\x00"), ";")
	return fields[0] + " " + fields[len(fields)-1]
}
