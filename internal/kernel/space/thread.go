package space

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
)

// visit calls do on a thread that is in namespace ns, of the kind flag, for as
// long; nil: where the caller is. A thread that cannot go back is never used
// again.
func visit(ns *os.File, flag int, do func() error) error {
	if ns == nil {
		return do()
	}
	if err := isKind(ns, flag); err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err, back := there(ns, flag, do)
		if back {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// there is visit on the calling, locked thread.
func there(ns *os.File, flag int, do func() error) (err error, back bool) {
	own, err := os.Open(ownNamespace(flag))
	if err != nil {
		return sysx.Fault("open own namespace", ownNamespace(flag), err), true
	}
	defer own.Close()
	if err := unix.Setns(int(ns.Fd()), flag); err != nil {
		return sysx.Fault("enter namespace", ns.Name(), err), true
	}
	err = do()
	return err, unix.Setns(int(own.Fd()), flag) == nil
}

// ownNamespace names the calling thread's namespace; of pid namespaces the one
// of its children.
func ownNamespace(flag int) string {
	switch flag {
	case unix.CLONE_NEWNET:
		return "/proc/thread-self/ns/net"
	case unix.CLONE_NEWIPC:
		return "/proc/thread-self/ns/ipc"
	case unix.CLONE_NEWCGROUP:
		return "/proc/thread-self/ns/cgroup"
	}
	return "/proc/thread-self/ns/pid_for_children"
}

// OnSpareThread calls do on a thread that ends with it. It is not the process's
// first thread, which cannot end and which /proc/self speaks of.
func OnSpareThread(do func() error) error {
	done := make(chan error)
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			inner := make(chan struct{})
			go func() { defer close(inner); run() }() // on another thread, as this one is taken
			<-inner
			return
		}
		done <- do()
	}
	go run()
	return <-done
}
