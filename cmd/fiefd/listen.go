package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"fief/internal/words/fault"
)

// firstInherited is the first descriptor that systemd passes; sd_listen_fds(3).
const firstInherited = 3

// inherited returns the listening sockets that systemd opened for this process,
// the docker door's stream sockets and the native door's sequenced-packet ones
// told apart by their type; sd_listen_fds(3).
func inherited() (docker, native []*os.File, err error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil, nil
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, "take over", "LISTEN_FDS", err, "")
	}
	for fd := firstInherited; fd < firstInherited+n; fd++ {
		syscall.CloseOnExec(fd)
		kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
		if err != nil {
			return nil, nil, fault.Wrap(fault.Invalid, "take over", "an inherited descriptor", err, "sockets only")
		}
		f := os.NewFile(uintptr(fd), "inherited")
		if kind == syscall.SOCK_SEQPACKET {
			native = append(native, f)
		} else {
			docker = append(docker, f)
		}
	}
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	return docker, native, nil
}

// listen opens a unix socket that only root may use. A socket left behind by a
// daemon that was killed is replaced; one that answers is not: two daemons on
// one socket would each see half of the requests.
func listen(network, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fault.Wrap(fault.Invalid, "create directory of", path, err, "")
	}
	if c, err := net.Dial(network, path); err == nil {
		c.Close()
		return nil, fault.New(fault.Conflict, "listen on", path, "another daemon answers there", "stop it, or choose another -H")
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path)
	}
	// The umask closes the moment between bind and chmod.
	old := syscall.Umask(0o177)
	l, err := net.Listen(network, path)
	syscall.Umask(old)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "listen on", path, err, "choose another -H")
	}
	return l, nil
}
