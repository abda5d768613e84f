package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// Where a program finds the socket to tell on that it is ready (sd_notify(3)), by
// the names that runc has.
const (
	notifyTarget = "/run/notify"
	notifyName   = "notify.sock"
	notifyDir    = "notify" // in the container's directory
)

// maxNotice is what is read of one message: systemd reads no more (notify-recv.c,
// NOTIFY_BUFFER_MAX).
const maxNotice = 4096

// manager is the socket of the service manager that has started this process,
// empty without one.
func manager() string { return os.Getenv("NOTIFY_SOCKET") }

// offerNotify gives the container a directory in which start makes a socket, where
// the caller is a service that tells its manager when it is ready: the manager's
// own socket would take from the container whatever it says of any unit. A program
// that its engine has given a socket to keeps that.
func (c *container) offerNotify(s *specs.Spec) error {
	if manager() == "" {
		return nil
	}
	given := func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") }
	if slices.ContainsFunc(s.Process.Env, given) {
		return nil
	}
	dir := filepath.Join(c.dir, notifyDir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fault.Wrap(fault.Internal, "make", dir, err, "")
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask: the container's users pass through
		return fault.Wrap(fault.Internal, "make", dir, err, "")
	}
	s.Mounts = append(append([]specs.Mount{}, s.Mounts...), specs.Mount{Destination: notifyTarget, Type: "bind", Source: dir,
		Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}})
	p := *s.Process
	p.Env = append(append([]string{}, p.Env...), "NOTIFY_SOCKET="+notifyTarget+"/"+notifyName)
	s.Process = &p
	return nil
}

// proxy is a container's socket for notices on its way to the manager's.
type proxy struct {
	socket  int
	manager string
}

// proxyNotify makes the socket in the container's directory, before its program
// runs; nil without one, or without a manager.
func (c *container) proxyNotify() (*proxy, error) {
	if manager() == "" {
		return nil, nil
	}
	name := filepath.Join(c.dir, notifyDir)
	dir, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "open", name, err, "")
	}
	defer unix.Close(dir)
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Exhausted, "make socket for", "notices", err, "")
	}
	// Any user of the container may write to it. It is named through the directory's
	// descriptor: sun_path has 108 bytes, unix(7).
	mask := unix.Umask(0)
	err = unix.Bind(socket, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + notifyName})
	unix.Umask(mask)
	if err != nil {
		unix.Close(socket)
		return nil, fault.Wrap(fault.Internal, "make socket in", name, err, "")
	}
	return &proxy{socket, manager()}, nil
}

// follow passes on that the container is ready, when it says so, and then, unless
// pid is 0, which process the service is from now on. It returns then, or when the
// process that pidfd is of, -1 for none, has ended. What else a container says is not passed on:
// it may not tell the manager of other processes or descriptors.
func (p *proxy) follow(pid, pidfd int) error {
	message := make([]byte, maxNotice)
	ended := pidfd < 0
	for {
		poll := []unix.PollFd{{Fd: int32(p.socket), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
		if !ended {
			if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
				return fault.Wrap(fault.Internal, "wait for notice of", "container", err, "")
			}
			ended = poll[1].Revents != 0 // what it has said before is read yet
		}
		// Without a control buffer descriptors that come with it are closed, which is
		// what sd_notify_barrier(3) waits for.
		n, _, err := unix.Recvfrom(p.socket, message, 0)
		switch {
		case err == nil && ready(message[:n]):
			return p.tell(pid)
		case err == unix.EAGAIN && ended:
			return nil
		case err != nil && err != unix.EAGAIN && err != unix.EINTR:
			return fault.Wrap(fault.Internal, "read notice of", "container", err, "")
		}
	}
}

// ready reports whether a notice has the line READY=1.
func ready(message []byte) bool {
	for line := range bytes.Lines(message) {
		if string(bytes.TrimSuffix(line, []byte{'\n'})) == "READY=1" {
			return true
		}
	}
	return false
}

// tell writes to the manager, and waits until it has read that: it looks up whose
// unit the writer is in, which may have ended by then otherwise
// (sd_notify_barrier(3)).
func (p *proxy) tell(pid int) error {
	text := "READY=1\n"
	if pid > 0 {
		text = "MAINPID=" + strconv.Itoa(pid) + "\n" + text
	}
	to := &unix.SockaddrUnix{Name: p.manager} // one that begins with @ is abstract
	out, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Exhausted, "make socket for", p.manager, err, "")
	}
	defer unix.Close(out)
	if err := unix.Sendto(out, []byte(text), unix.MSG_NOSIGNAL, to); err != nil {
		return fault.Wrap(fault.Unavailable, "tell that the container is ready to", p.manager, err, "")
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fault.Wrap(fault.Exhausted, "make pipe for", p.manager, err, "")
	}
	defer unix.Close(pipe[0])
	err = unix.Sendmsg(out, []byte("BARRIER=1"), unix.UnixRights(pipe[1]), to, unix.MSG_NOSIGNAL)
	unix.Close(pipe[1])
	if err == nil {
		unix.Poll([]unix.PollFd{{Fd: int32(pipe[0])}}, barrier)
	}
	return nil // it was told; one that knows no barrier is not waited for
}

// barrier is how long a manager may take to read a notice, in milliseconds.
const barrier = 5000

func (p *proxy) close() {
	if p != nil {
		unix.Close(p.socket)
	}
}
