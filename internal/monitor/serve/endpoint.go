package serve

import (
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// endpoint is one descriptor of a client, made fit for reads and writes that
// never hang the monitor and can be cancelled. O_NONBLOCK lies in the open
// file description, which the client shares with its shell, so it must not be
// set on what we were given:
//
//   - pipes and terminals are opened again through /proc/self/fd, which makes
//     a description of our own that waits in the runtime's poller;
//   - everything else (sockets, regular files, whose offset is to be shared,
//     and what cannot be opened again) is asked by poll(2) before each small
//     read or write, next to an eventfd that cancels the wait.
type endpoint struct {
	async *os.File        // nil in the second case
	raw   syscall.RawConn // of async

	fd     int // second case
	socket bool
	chunk  int // bytes that are taken without waiting when poll(2) says so: PIPE_BUF for a pipe
	cancel int // eventfd

	users  sync.RWMutex // held for reading while fd is in use; Close takes it for writing
	closed chan struct{}
	once   sync.Once
}

// newEndpoint takes over fd, also on failure. write says for which direction
// it is used.
func newEndpoint(fd int, write bool) (*endpoint, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	kind := st.Mode & unix.S_IFMT
	again, err := reopen(fd, kind, write)
	if err == unix.ENXIO && kind == unix.S_IFIFO {
		unix.Close(fd)
		return nil, unix.EPIPE // fifo(7): nobody reads that pipe any more
	}
	if err != nil {
		return newPolled(fd, kind)
	}
	unix.Close(fd)
	e := &endpoint{async: os.NewFile(uintptr(again), "client"), closed: make(chan struct{})}
	e.raw, err = e.async.SyscallConn()
	return e, err
}

// newPolled is newEndpoint for what cannot be opened again.
func newPolled(fd int, kind uint32) (*endpoint, error) {
	cancel, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	e := &endpoint{fd: fd, socket: kind == unix.S_IFSOCK, chunk: 4096, cancel: cancel, closed: make(chan struct{})}
	switch kind {
	case unix.S_IFSOCK, unix.S_IFREG, unix.S_IFBLK:
		e.chunk = 1 << 20
	case unix.S_IFCHR:
		e.chunk = 256 // tty_poll: room for WAKEUP_CHARS
	}
	return e, nil
}

// reopen makes a second, non-blocking description of a pipe or terminal. It
// fails for all other files, and where permissions have changed since the
// client opened it.
func reopen(fd int, kind uint32, write bool) (int, error) {
	flags := unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	if write {
		flags |= unix.O_WRONLY
	}
	switch kind {
	case unix.S_IFIFO:
	case unix.S_IFCHR:
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
			return -1, err
		}
	default:
		return -1, unix.EINVAL
	}
	return unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags, 0)
}

// Read reads what is there, waiting for at least one byte. io.EOF is the end,
// also of a terminal that has hung up; os.ErrClosed says that Close was called.
func (e *endpoint) Read(p []byte) (int, error) {
	if e.async != nil {
		n, err := e.async.Read(p)
		if isErrno(err, unix.EIO) {
			err = io.EOF
		}
		return n, err
	}
	e.users.RLock()
	defer e.users.RUnlock()
	for {
		if err := e.wait(unix.POLLIN); err != nil {
			return 0, err
		}
		n, err := e.readNow(p)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err == nil && n == 0 || err == unix.EIO {
			return 0, io.EOF
		}
		return max(n, 0), err
	}
}

func (e *endpoint) readNow(p []byte) (int, error) {
	if e.socket {
		n, _, err := unix.Recvfrom(e.fd, p, unix.MSG_DONTWAIT)
		return n, err
	}
	return unix.Read(e.fd, p)
}

// wait waits until fd is ready or Close is called.
func (e *endpoint) wait(events int16) error {
	fds := []unix.PollFd{{Fd: int32(e.fd), Events: events}, {Fd: int32(e.cancel), Events: unix.POLLIN}}
	for {
		select {
		case <-e.closed:
			return os.ErrClosed
		default:
		}
		_, err := unix.Poll(fds, -1)
		if err != nil && err != unix.EINTR {
			return err
		}
		if fds[1].Revents == 0 && fds[0].Revents != 0 {
			return nil
		}
	}
}

// TryWrite writes what can be written at once, which may be nothing.
func (e *endpoint) TryWrite(p []byte) (int, error) {
	if e.async == nil {
		return e.tryPolled(p)
	}
	n := 0
	var werr error
	err := e.raw.Write(func(fd uintptr) bool {
		n, werr = writeNow(int(fd), p)
		return true
	})
	if err == nil {
		err = werr
	}
	return n, err
}

// writeNow writes to a descriptor that does not block.
func writeNow(fd int, p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(fd, p[done:])
		switch err {
		case nil:
			done += n
		case unix.EINTR:
		case unix.EAGAIN:
			return done, nil
		default:
			return done, err
		}
	}
	return done, nil
}

func (e *endpoint) tryPolled(p []byte) (int, error) {
	e.users.RLock()
	defer e.users.RUnlock()
	done := 0
	for done < len(p) {
		select {
		case <-e.closed:
			return done, os.ErrClosed
		default:
		}
		fds := []unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(fds, 0); n <= 0 {
			if err == unix.EINTR {
				continue
			}
			return done, err
		}
		n, err := e.sendNow(p[done:min(len(p), done+e.chunk)])
		done += max(n, 0)
		if err == unix.EAGAIN {
			return done, nil
		}
		if err != nil && err != unix.EINTR {
			return done, err
		}
	}
	return done, nil
}

func (e *endpoint) sendNow(p []byte) (int, error) {
	if e.socket {
		return unix.SendmsgN(e.fd, p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	return unix.Write(e.fd, p)
}

// Write writes all of p, waiting as long as it takes or until Close.
func (e *endpoint) Write(p []byte) (int, error) {
	if e.async != nil {
		return e.async.Write(p)
	}
	done := 0
	for {
		n, err := e.tryPolled(p[done:])
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
		e.users.RLock()
		err = e.wait(unix.POLLOUT)
		e.users.RUnlock()
		if err != nil {
			return done, err
		}
	}
}

// Close ends pending reads and writes and closes the descriptor. It may be
// called again.
func (e *endpoint) Close() {
	e.once.Do(func() {
		close(e.closed)
		if e.async != nil {
			e.async.Close()
			return
		}
		unix.Write(e.cancel, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		// On a goroutine of its own: a device may ignore that poll(2) promised
		// not to block, and the monitor must not wait for it.
		go func() {
			e.users.Lock()
			defer e.users.Unlock()
			unix.Close(e.fd)
			unix.Close(e.cancel)
		}()
	})
}

// isErrno reports whether err is errno, also below an *fs.PathError.
func isErrno(err error, errno syscall.Errno) bool {
	for err != nil {
		if e, ok := err.(syscall.Errno); ok {
			return e == errno
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return false
		}
		err = u.Unwrap()
	}
	return false
}

// past is a deadline that has passed: setting it wakes a reader.
var past = time.Unix(1, 0)
