// Package wire holds the messages of the native door and the client's half of
// it. It is linked into every `fief run`: nothing in it starts at package
// initialisation, and the client speaks to its socket by bare system calls.
//
// One message is one or more packets of a SOCK_SEQPACKET socket. A packet is
// a kind, a flag byte and up to ChunkSize bytes of the message's body; the
// descriptors travel with the first packet. Numbers are little-endian.
package wire

import (
	"fief/internal/words/fault"
)

// Version is the version of this protocol. It is the first byte of every
// request; a daemon of another version refuses the request.
const Version = 1

// ChunkSize is the most bytes of body in a packet. It stays well below the
// default net.core.wmem_default of 212992, above which sendmsg answers EMSGSIZE.
const ChunkSize = 64 << 10

// MaxBody is the most bytes of an assembled message that a reader accepts.
const MaxBody = 32 << 20

// MaxFiles is the most descriptors that a message carries.
const MaxFiles = 8

// Kind says what a message is.
type Kind byte

// The kinds. The first three go to the daemon, the others come from it.
const (
	Request  Kind = 1 + iota // version, verb, body: begins a call
	Signal                   // a signal number for the process of the call
	Resize                   // rows and columns for the terminal of the call
	Progress                 // JSON record.Progress
	Data                     // output, see Lines
	Event                    // JSON record.Event
	Warning                  // a sentence for the user
	Started                  // id of the container or exec session that now runs, see StartedBody
	Exit                     // end of the process, see ExitBody
	Result                   // JSON answer: ends the call
	Failure                  // a fault, see FailureBody: ends the call
)

const flagMore = 1 // another packet of the same message follows

// Message is one received message. Files belong to the receiver, which closes
// them.
type Message struct {
	Kind  Kind
	Body  []byte
	Files []int
}

// Packets is a seqpacket socket as this package needs it. Read returns io.EOF
// when the peer is gone. Received descriptors are close-on-exec.
type Packets interface {
	Read(b []byte) (n int, files []int, err error)
	Write(b []byte, files []int) error
}

// Write sends a message whole, in as many packets as it needs. The caller
// keeps its descriptors. Two goroutines must not write messages larger than
// ChunkSize to the same socket at once; smaller ones are atomic.
func Write(p Packets, kind Kind, body []byte, files ...int) error {
	for {
		part, flags := body, byte(0)
		if len(part) > ChunkSize {
			part, flags = body[:ChunkSize], flagMore
		}
		packet := append(append(make([]byte, 0, 2+len(part)), byte(kind), flags), part...)
		if err := p.Write(packet, files); err != nil {
			return err
		}
		if flags == 0 {
			return nil
		}
		body, files = body[len(part):], nil
	}
}

// Reader assembles messages. It is not safe for concurrent use.
type Reader struct {
	p   Packets
	buf []byte
}

// NewReader returns a reader of p's messages.
func NewReader(p Packets) *Reader { return &Reader{p: p} }

// Next returns the next message, or io.EOF when the peer has gone between
// messages. On any error no descriptor is left open.
func (r *Reader) Next() (Message, error) {
	var m Message
	for first := true; ; first = false {
		more, err := r.part(&m, first)
		if err != nil {
			m.Close()
			return Message{}, err
		}
		if !more {
			return m, nil
		}
	}
}

func (r *Reader) part(m *Message, first bool) (more bool, err error) {
	if r.buf == nil {
		r.buf = make([]byte, 2+ChunkSize)
	}
	n, files, err := r.p.Read(r.buf)
	m.Files = append(m.Files, files...)
	if err != nil {
		return false, err
	}
	if n < 2 {
		return false, broken("packet shorter than its header")
	}
	kind, flags := Kind(r.buf[0]), r.buf[1]
	if !first && kind != m.Kind {
		return false, broken("message interrupted by another")
	}
	if len(m.Body)+n-2 > MaxBody {
		return false, broken("message larger than 32 MiB")
	}
	if len(m.Files) > MaxFiles {
		return false, broken("too many descriptors")
	}
	m.Kind = kind
	m.Body = append(m.Body, r.buf[2:n]...)
	return flags&flagMore != 0, nil
}

func broken(why string) error {
	return fault.New(fault.Corrupt, "read message", "", why, "fief and fiefd may be of different builds")
}
