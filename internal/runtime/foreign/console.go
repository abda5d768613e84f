package foreign

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// listen makes the socket over which a runtime hands over a terminal. It is
// named through the directory's descriptor: sun_path has 108 bytes, unix(7).
func listen(dir int, name string) (int, error) {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Fchmod(sock, 0o600); err == nil {
		err = unix.Bind(sock, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name})
	}
	if err == nil {
		err = unix.Listen(sock, 1)
	}
	if err != nil {
		unix.Close(sock)
		return -1, err
	}
	return sock, nil
}

// handover is how long a terminal may take that its sender says it has sent.
const handover = 5 * time.Second

// console receives the master of the terminal: one descriptor in one message
// (runc docs/terminals.md, "Detached"). The runtime has sent it before it ended.
func (n *call) console() (int, error) {
	conn, _, err := unix.Accept4(n.socket, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, n.failed("it has not handed over the terminal")
	}
	f := os.NewFile(uintptr(conn), "terminal socket")
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(handover))
	var data [4096]byte
	oob := make([]byte, unix.CmsgSpace(4*8))
	noob := 0
	raw, err := f.SyscallConn()
	if err == nil {
		rerr := raw.Read(func(fd uintptr) bool {
			_, noob, _, _, err = unix.Recvmsg(int(fd), data[:], oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		if err == nil {
			err = rerr
		}
	}
	master := -1
	if err == nil {
		master = first(oob[:noob])
	}
	if master < 0 {
		return -1, n.failed("what it has sent as the terminal is none")
	}
	if _, err := unix.IoctlGetInt(master, unix.TIOCGPTN); err != nil {
		unix.Close(master)
		return -1, n.failed("what it has sent as the terminal is none")
	}
	return master, nil
}

// first returns the only descriptor of a message and closes those besides it.
func first(oob []byte) int {
	found := -1
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if found < 0 {
				found = fd
			} else {
				unix.Close(fd)
			}
		}
	}
	return found
}
