package monitor

import "golang.org/x/sys/unix"

// Gone reports whether the client of an attachment that was not handed over
// yet has closed its end of Alive (poll(2): POLLHUP). Without Alive nobody can
// tell, and it is not.
func (a Attach) Gone() bool {
	if a.Alive == nil {
		return false
	}
	conn, err := a.Alive.SyscallConn()
	if err != nil {
		return true
	}
	var p [1]unix.PollFd
	err = conn.Control(func(fd uintptr) {
		p[0].Fd = int32(fd)
		unix.Poll(p[:], 0)
	})
	return err != nil || p[0].Revents&unix.POLLHUP != 0
}
