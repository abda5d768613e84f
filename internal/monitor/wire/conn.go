package wire

import (
	"encoding/binary"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// A datagram is a header and either the encoded message or, when that is
// longer than maxInline, its length, the message itself lying in a memfd that
// is sent as the first descriptor: a plan of a container with many mounts is
// larger than what an unprivileged socket buffer may take at once.
const (
	headerSize = 8         // magic u16, flags u16, sequence number u32
	maxInline  = 56 << 10  // below the 64 KiB of a receiver's buffer
	maxSpilled = 16 << 20  // more than any plan; a limit on what a peer can make us read
	bufSize    = 64 << 10  // of one receive
	oobSize    = 1040      // room for the descriptors of one message: CMSG_SPACE of maxFiles and one more is 1024
	maxFiles   = 250       // SCM_MAX_FD is 253, unix(7); one may be the memfd
	magic      = 0x6669    // "if": a stray peer is noticed at its first byte
	flagSpill  = uint16(1) // the message is in the first descriptor
)

var buffers = sync.Pool{New: func() any { return new([bufSize]byte) }}

// Conn is one end of a SOCK_SEQPACKET connection. Any number of goroutines may
// Send; one at a time may Recv. Neither holds a thread while it waits.
type Conn struct {
	f   *os.File
	raw syscall.RawConn
}

// NewConn takes over the descriptor of a connected SOCK_SEQPACKET socket, also
// on failure.
func NewConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, ioFault("use", err)
	}
	f := os.NewFile(uintptr(fd), "monitor socket")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, ioFault("use", err)
	}
	return &Conn{f: f, raw: raw}, nil
}

// Pair returns the two ends of a new connection: ours, and a close-on-exec
// descriptor for a process to be started.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, ioFault("make", err)
	}
	ours, err := NewConn(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return ours, os.NewFile(uintptr(fds[1]), "monitor socket"), nil
}

// Close closes the connection and wakes whoever waits in Send or Recv.
func (c *Conn) Close() error { return c.f.Close() }

// SetReadDeadline bounds a Recv; the zero time means no bound.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.f.SetReadDeadline(t) }

// Alive reports whether the peer still holds its end.
func (c *Conn) Alive() bool {
	alive := false
	err := c.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(p, 0)
		alive = err == nil && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) == 0
	})
	return err == nil && alive
}

// PeerUID returns the user id of the process that made the peer's end.
func (c *Conn) PeerUID() (uint32, error) {
	var cred *unix.Ucred
	var cerr error
	err := c.raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = cerr
	}
	if err != nil {
		return 0, ioFault("ask for the peer of", err)
	}
	return cred.Uid, nil
}

// Send sends one message and duplicates of files, which stay the caller's.
func (c *Conn) Send(seq uint32, m Message, files []int) error {
	if len(files) > maxFiles {
		return fault.New(fault.Exhausted, "send", "descriptors to the monitor",
			"more than 250 in one message", "use fewer mounts and devices")
	}
	var head []byte
	switch m.(type) {
	case *Start, *Exec, *Health: // with a plan: tens of kilobytes
		buf := buffers.Get().(*[bufSize]byte)
		defer buffers.Put(buf)
		head = buf[:headerSize]
		clear(head)
	default:
		head = make([]byte, headerSize, 512)
	}
	binary.LittleEndian.PutUint16(head, magic)
	binary.LittleEndian.PutUint32(head[4:], seq)
	frame := Append(head, m)
	if len(frame)-headerSize > maxInline {
		fd, err := spill(frame[headerSize:])
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		files = append([]int{fd}, files...)
		binary.LittleEndian.PutUint16(frame[2:], flagSpill)
		frame = binary.LittleEndian.AppendUint32(frame[:headerSize], uint32(len(frame)-headerSize))
	}
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	return c.write(frame, oob)
}

func (c *Conn) write(frame, oob []byte) error {
	var serr error
	err := c.raw.Write(func(fd uintptr) bool {
		for {
			_, serr = unix.SendmsgN(int(fd), frame, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			if serr != unix.EINTR {
				return serr != unix.EAGAIN
			}
		}
	})
	if err == nil {
		err = serr
	}
	if err != nil {
		return ioFault("write to", err)
	}
	return nil
}

// spill puts a long message into memory that can be sent as a descriptor.
func spill(body []byte) (int, error) {
	if len(body) > maxSpilled {
		return -1, fault.New(fault.Invalid, "send", "message to the monitor", "longer than 16 MiB", "")
	}
	fd, err := unix.MemfdCreate("fief-message", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, ioFault("write to", err)
	}
	for off := 0; off < len(body); {
		n, err := unix.Pwrite(fd, body[off:], int64(off))
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, ioFault("write to", err)
		}
		off += max(n, 0)
	}
	return fd, nil
}

// Recv waits for the next message. The descriptors are close-on-exec and the
// caller's; their number is checked against the message. io.EOF says that the
// peer is gone. No memory is held while there is nothing to read: a daemon has
// as many connections as containers.
func (c *Conn) Recv() (seq uint32, m Message, files []int, err error) {
	var buf *[bufSize]byte
	defer func() {
		if buf != nil {
			buffers.Put(buf)
		}
	}()
	var got datagram
	err = c.raw.Read(func(fd uintptr) bool {
		if buf == nil {
			buf = buffers.Get().(*[bufSize]byte)
		}
		if got.receive(int(fd), buf[:]); got.err != unix.EAGAIN {
			return true
		}
		buffers.Put(buf)
		buf = nil
		return false
	})
	if err != nil {
		return 0, nil, nil, ioFault("read from", err)
	}
	if files, err = got.check(); err != nil {
		return 0, nil, nil, err
	}
	seq, m, files, err = decodeFrame(buf[:got.n], files)
	if err != nil {
		CloseAll(files)
		return 0, nil, nil, err
	}
	return seq, m, files, nil
}

// datagram is what came of one receive.
type datagram struct {
	n, flags int
	files    []int
	err      error
}

func (d *datagram) receive(fd int, buf []byte) {
	var oob [oobSize]byte
	for {
		var noob int
		d.n, noob, d.flags, _, d.err = unix.Recvmsg(fd, buf, oob[:], unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		if d.err == nil {
			d.files = rights(oob[:noob])
		}
		if d.err != unix.EINTR {
			return
		}
	}
}

// check returns the descriptors of a datagram that is whole.
func (d *datagram) check() ([]int, error) {
	var err error
	switch {
	case d.err == unix.ECONNRESET: // the peer died with a message of ours unread
		err = io.EOF
	case d.err != nil:
		err = ioFault("read from", d.err)
	case d.n == 0:
		err = io.EOF
	case d.flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = corrupt("message or its descriptors were cut off")
	}
	if err != nil {
		CloseAll(d.files)
		return nil, err
	}
	return d.files, nil
}

func rights(oob []byte) []int {
	var files []int
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err == nil {
			files = append(files, fds...)
		}
	}
	return files
}

// decodeFrame reads a datagram. It consumes the descriptor of a spilled
// message; on failure the descriptors not consumed are returned for closing.
func decodeFrame(frame []byte, files []int) (uint32, Message, []int, error) {
	if len(frame) < headerSize || binary.LittleEndian.Uint16(frame) != magic {
		return 0, nil, files, corrupt("not a message of fief")
	}
	seq := binary.LittleEndian.Uint32(frame[4:])
	body := frame[headerSize:]
	switch binary.LittleEndian.Uint16(frame[2:]) {
	case 0:
	case flagSpill:
		if len(files) == 0 || len(body) != 4 {
			return 0, nil, files, corrupt("long message without its memory")
		}
		var err error
		body, err = unspill(files[0], binary.LittleEndian.Uint32(body))
		unix.Close(files[0])
		files = files[1:]
		if err != nil {
			return 0, nil, files, err
		}
	default:
		return 0, nil, files, corrupt("unknown flags")
	}
	m, err := Decode(body)
	if _, other := m.(*Other); other {
		CloseAll(files)
		return seq, m, nil, nil
	}
	if err == nil && len(files) != Files(m) {
		err = corrupt("wrong number of descriptors")
	}
	return seq, m, files, err
}

func unspill(fd int, size uint32) ([]byte, error) {
	if size > maxSpilled {
		return nil, corrupt("longer than 16 MiB")
	}
	body := make([]byte, size)
	for off := 0; off < len(body); {
		n, err := unix.Pread(fd, body[off:], int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return nil, corrupt("long message is incomplete")
		}
		off += n
	}
	return body, nil
}

// CloseAll closes descriptors.
func CloseAll(files []int) {
	for _, fd := range files {
		unix.Close(fd)
	}
}

func ioFault(op string, err error) error {
	return fault.Wrap(fault.Unavailable, op, "monitor socket", err, "")
}
