package serve

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// adopt makes this monitor the stand-in of a container's own. It has no part in
// the streams, the log and the exit of process 1; what it starts is its own.
func (v *server) adopt(m *wire.Adopt, pidfd int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.started {
		unix.Close(pidfd)
		return fault.New(fault.Conflict, "adopt", m.ID, "this monitor has a container", "")
	}
	v.started, v.standIn, v.id = true, true, m.ID
	if err := v.listen(m.Dir); err != nil {
		v.failed = true
		unix.Close(pidfd)
		return err
	}
	box := newSession(v, "", &wire.Proc{})
	unix.SetNonblock(pidfd, true) // cannot fail on a descriptor that is open
	box.pid, box.began, box.pidfd = int(m.PID), time.Unix(0, m.Started), os.NewFile(uintptr(pidfd), "pidfd")
	v.box = box
	go box.attend()
	return nil
}

// attend waits for the end of a process that is not ours to wait for: its pidfd
// becomes readable, pidfd_open(2).
func (s *session) attend() {
	ended := func(wait int) bool {
		over := false
		s.control(s.pidfd, func(fd int) {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(p, wait)
			over = n > 0 || err != nil && err != unix.EINTR
		})
		return over
	}
	raw, err := s.pidfd.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) bool { return ended(0) })
	}
	for err != nil && !ended(-1) { // no poller for this descriptor: wait on a thread
		continue
	}
	s.mu.Lock()
	s.reaped = true
	s.mu.Unlock()
	close(s.exited)
	s.pidfd.Close()
}
