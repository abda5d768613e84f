package serve

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// listen makes mon.sock in the run directory, removes the exit file of an
// earlier run of the container, and keeps v.dir. The socket is named
// through the directory's descriptor, as a run directory below a long
// --exec-root does not fit into the 108 bytes of sun_path, unix(7).
func (v *server) listen(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, "open run directory", dir, err, "")
	}
	sock, err := listenAt(fd)
	if err == nil {
		err = unlink(fd, wire.ExitFile)
	}
	if err != nil {
		unix.Close(fd)
		return fault.Wrap(fault.Internal, "listen in", dir, err, "")
	}
	v.dir = fd
	go v.accept(os.NewFile(uintptr(sock), wire.SocketName))
	return nil
}

func listenAt(dir int) (int, error) {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	// unix_bind gives the new file the mode of the socket's own inode: no
	// moment passes in which others may connect.
	err = unix.Fchmod(sock, 0o600)
	if err == nil {
		err = unlink(dir, wire.SocketName)
	}
	if err == nil {
		err = unix.Bind(sock, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + wire.SocketName})
	}
	if err == nil {
		err = unix.Listen(sock, 8)
	}
	if err != nil {
		unix.Close(sock)
		return -1, err
	}
	return sock, nil
}

// unlink removes a file that may not be there.
func unlink(dir int, name string) error {
	if err := unix.Unlinkat(dir, name, 0); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}

// unlisten removes mon.sock: who finds none reads the exit file.
func (v *server) unlisten() {
	if v.dir >= 0 {
		unlink(v.dir, wire.SocketName)
	}
}

// accept takes daemons that come back.
func (v *server) accept(l *os.File) {
	raw, err := l.SyscallConn()
	if err != nil {
		complain(err)
		return
	}
	for {
		fd := -1
		var aerr error
		err := raw.Read(func(sock uintptr) bool {
			fd, _, aerr = unix.Accept4(int(sock), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return aerr != unix.EAGAIN
		})
		if err != nil {
			complain(err)
			return
		}
		if aerr != nil { // the caller is gone already, or we are out of descriptors
			continue
		}
		v.welcome(fd)
	}
}

// welcome makes a daemon the controlling one, unless there is one that lives.
func (v *server) welcome(fd int) {
	conn, err := wire.NewConn(fd)
	if err != nil {
		complain(err)
		return
	}
	hello := v.hello()
	if uid, err := conn.PeerUID(); err != nil || uid != 0 && uid != uint32(os.Geteuid()) {
		conn.Close()
		return
	}
	v.mu.Lock()
	hello.Refused = v.over || v.conn != nil && v.conn.Alive()
	v.mu.Unlock()
	// Hello goes out before anything else can: only then the connection is
	// known to those who report exits.
	if err := conn.Send(0, hello, nil); err != nil || hello.Refused {
		conn.Close()
		return
	}
	v.mu.Lock()
	v.conn = conn // a dead predecessor finds itself replaced when it ends
	exits := append([]*wire.Exited(nil), v.exits...)
	v.mu.Unlock()
	for _, e := range exits {
		conn.Send(0, e, nil)
	}
	go v.control(conn)
}
