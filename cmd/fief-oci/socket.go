package main

import "golang.org/x/sys/unix"

// sendFD sends a message with a descriptor, which stays the caller's, to a unix
// stream socket. Package net would be a fifth of what this binary initialises.
func sendFD(socket string, message []byte, fd int) error {
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(conn)
	if err := again(func() error { return unix.Connect(conn, &unix.SockaddrUnix{Name: socket}) }); err != nil {
		return err
	}
	rights := unix.UnixRights(fd)
	for len(message) > 0 {
		var n int
		err := again(func() (err error) {
			n, err = unix.SendmsgN(conn, message, rights, nil, unix.MSG_NOSIGNAL)
			return err
		})
		if err != nil {
			return err
		}
		message, rights = message[n:], nil
	}
	return nil
}

// again repeats what a signal interrupted.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
