package within

import (
	"runtime"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/words/idmap"
)

// asRoot calls do on a thread that makes files as the container's root: below
// an idmapped mount nobody else's can be made (EOVERFLOW, since the map does not
// have host root). The capabilities that setfsuid(2) takes away are taken back
// for changing owners and modes; the thread ends with do.
func asRoot(pair idmap.Pair, do func() error) error {
	if pair.IsZero() {
		return do()
	}
	uid, _ := pair.UID.ToHost(0)
	gid, _ := pair.GID.ToHost(0)
	done := make(chan error)
	go spare(done, func() error {
		if err := become(int(uid), int(gid)); err != nil {
			return err
		}
		return do()
	})
	return <-done
}

// spare calls do on a thread that ends with it. The process's first thread
// cannot end, and others look at it as the process.
func spare(done chan<- error, do func() error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		inner := make(chan error)
		go spare(inner, do) // on another thread, as this one is taken
		err := <-inner
		runtime.UnlockOSThread()
		done <- err
		return
	}
	done <- do()
}

// become changes whose files the calling thread makes. setfsuid(2) reports
// nothing: the second call returns what the first has set.
func become(uid, gid int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return sysx.Fault("read", "capabilities", err)
	}
	for _, set := range []struct {
		to  func(int) (int, error)
		id  int
		who string
	}{{unix.SetfsgidRetGid, gid, "group"}, {unix.SetfsuidRetUid, uid, "user"}} {
		if _, err := set.to(set.id); err != nil {
			return sysx.Fault("become", "the container's root "+set.who, err)
		}
		if now, _ := set.to(set.id); now != set.id {
			return sysx.Fault("become", "the container's root "+set.who, unix.EPERM)
		}
	}
	header.Pid = 0
	return sysx.Fault("keep", "capabilities", unix.Capset(&header, &caps[0]))
}
