package wire

import (
	"encoding/json"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// Conn is the client's end of a connection to the daemon. Read and Write block
// the calling thread: a client has one call at a time, and the poller's start
// would cost a tenth of a `fief run`. One goroutine may read while others
// write messages of one packet.
type Conn struct {
	fd     int
	reader *Reader
}

// Dial connects to the native socket at path. The error of a daemon that does
// not run is of class Unavailable.
func Dial(path string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "make socket", "", err, "")
	}
	err = ignoringEINTR(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
	if err != nil {
		unix.Close(fd)
		return nil, dialFault(path, err)
	}
	c := &Conn{fd: fd}
	c.reader = NewReader(socket(fd))
	return c, nil
}

func dialFault(path string, err error) error {
	switch err {
	case unix.EACCES, unix.EPERM:
		return fault.Wrap(fault.Denied, "reach the daemon at", path, err, "the socket is open to root only")
	case unix.ENOENT, unix.ECONNREFUSED:
		return fault.Wrap(fault.Unavailable, "reach the daemon at", path, err, "")
	}
	return fault.Wrap(fault.Internal, "reach the daemon at", path, err, "")
}

// FD is the socket, for poll(2); it stays the connection's.
func (c *Conn) FD() int { return c.fd }

// Close ends the connection.
func (c *Conn) Close() { unix.Close(c.fd) }

// Ask sends a request. The caller keeps its descriptors.
func (c *Conn) Ask(v Verb, body []byte, files ...int) error {
	err := Write(socket(c.fd), Request, EncodeRequest(v, body), files...)
	return fault.Wrap(fault.Unavailable, "send request to", "the daemon", err, "")
}

// Tell sends a message that belongs to the running call: Signal or Resize.
func (c *Conn) Tell(kind Kind, body []byte) error { return Write(socket(c.fd), kind, body) }

// Next returns the next message. The error of a daemon that is gone is io.EOF
// or a system call's.
func (c *Conn) Next() (Message, error) { return c.reader.Next() }

// Call sends a request with a JSON body and reads until its result, which is
// decoded into result unless that is nil. Messages in between go to each,
// whose error ends the reading. A nil each ignores them.
func (c *Conn) Call(v Verb, request, result any, each func(Message) error, files ...int) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fault.Wrap(fault.Internal, "encode request", "", err, "")
	}
	if err := c.Ask(v, body, files...); err != nil {
		return err
	}
	for {
		m, err := c.Next()
		if err != nil {
			return Gone(err)
		}
		switch m.Kind {
		case Failure:
			return DecodeFailure(m.Body)
		case Result:
			return decodeResult(m.Body, result)
		}
		if each == nil {
			continue
		}
		if err := each(m); err != nil {
			return err
		}
	}
}

func decodeResult(body []byte, result any) error {
	if result == nil || len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, result); err != nil {
		return fault.Wrap(fault.Corrupt, "read the daemon's answer", "", err, "fief and fiefd may be of different builds")
	}
	return nil
}

// Gone makes the fault of a connection that broke during a call.
func Gone(err error) error {
	if fault.ClassOf(err) == fault.Corrupt {
		return err
	}
	return fault.Wrap(fault.Unavailable, "hear from", "the daemon", err, "it may have been stopped: try again")
}

// Pair returns both ends of a liveness socket pair, close-on-exec.
func Pair() (ours, theirs int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	return p[0], p[1], nil
}

// socket is a blocking seqpacket socket.
type socket int

// Read implements Packets.
func (s socket) Read(b []byte) (n int, files []int, err error) {
	oob := make([]byte, unix.CmsgSpace(MaxFiles*4))
	var oobn, flags int
	err = ignoringEINTR(func() (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(int(s), b, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return 0, nil, os.NewSyscallError("recvmsg", err)
	}
	if oobn > 0 {
		files = Descriptors(oob[:oobn])
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return 0, files, broken("packet cut short")
	}
	if n == 0 {
		return 0, files, io.EOF
	}
	return n, files, nil
}

// Write implements Packets.
func (s socket) Write(b []byte, files []int) error {
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	err := ignoringEINTR(func() error { return unix.Sendmsg(int(s), b, oob, nil, unix.MSG_NOSIGNAL) })
	return os.NewSyscallError("sendmsg", err)
}

// Descriptors returns the descriptors in control messages; the caller owns
// them. What is not SCM_RIGHTS is skipped.
func Descriptors(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var out []int
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			out = append(out, fds...)
		}
	}
	return out
}

// Close closes the message's descriptors.
func (m *Message) Close() {
	for _, fd := range m.Files {
		unix.Close(fd)
	}
	m.Files = nil
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
