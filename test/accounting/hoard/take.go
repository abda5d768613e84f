package main

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func errnoError(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// watcher makes many instances of inotify watch one file after another. Watches
// of one file by many instances count each, and cost less memory than watches
// of as many files. The files have no names, so that none is left.
type watcher struct {
	instances [20]int
	file      int
}

func (w *watcher) watch(n int) (err error) {
	if n == 0 {
		for i := range w.instances {
			if w.instances[i], err = unix.InotifyInit1(0); err != nil {
				return err
			}
		}
	}
	turn := n % len(w.instances)
	if turn == 0 {
		if w.file, err = unix.MemfdCreate("hoard", 0); err != nil {
			return err
		}
	}
	_, err = unix.InotifyAddWatch(w.instances[turn], fmt.Sprintf("/proc/self/fd/%d", w.file), unix.IN_ACCESS)
	return err
}

// queue makes a message queue without a name. It is charged the message and
// what the kernel needs to find it, 8248 bytes in all (mq_overview(7)).
func queue(n int) error {
	name, _ := unix.BytePtrFromString(fmt.Sprintf("hoard-%d-%d", os.Getpid(), n))
	attr := [8]int{1: 1, 2: 8192} // struct mq_attr: one message of 8192 bytes
	_, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600, uintptr(unsafe.Pointer(&attr)), 0, 0)
	if e != 0 {
		return e
	}
	_, _, e = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0)
	return errnoError(e)
}

// signal queues a blocked real-time signal to this thread.
func signal(n int) error {
	const signo = 60
	if n == 0 {
		var set unix.Sigset_t
		set.Val[(signo-1)/64] |= 1 << ((signo - 1) % 64)
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
			return err
		}
	}
	const fromQueue = -1 // SI_QUEUE
	info := [32]int32{0: signo, 2: fromQueue}
	_, _, e := unix.Syscall6(unix.SYS_RT_TGSIGQUEUEINFO, uintptr(os.Getpid()), uintptr(unix.Gettid()), signo, uintptr(unsafe.Pointer(&info)), 0, 0)
	return errnoError(e)
}

// lockedBytes are what one call of lock locks.
const lockedBytes = 64 << 10

// lock locks a segment of shared memory, which goes with this process. Memory
// locked by mlock(2) is counted for a process and not for its user.
func lock(int) error {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, lockedBytes, unix.IPC_CREAT|0o600)
	if err != nil {
		return err
	}
	const shmLock = 11 // SHM_LOCK
	_, locked := unix.SysvShmCtl(id, shmLock, nil)
	if locked == nil {
		_, locked = unix.SysvShmAttach(id, 0, 0)
	}
	if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil {
		return err
	}
	return locked
}

// key adds a key to the keyring of this process.
func key(n, bytes int) error {
	_, err := unix.AddKey("user", fmt.Sprintf("hoard-%06d", n), make([]byte, bytes), unix.KEY_SPEC_PROCESS_KEYRING)
	return err
}
