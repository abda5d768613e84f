package systemd

import (
	"encoding/binary"
	"errors"
)

// A D-Bus message, as far as it is needed here (D-Bus specification, "Message
// Protocol"): little-endian, with the types that systemd's calls have.

// kind is the type of a message.
type kind byte

const (
	call   kind = 1
	answer kind = 2
	failed kind = 3
	signal kind = 4
)

// The codes of header fields.
const (
	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldError       = 4
	fieldReply       = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// maxMessage is what the specification lets a message have.
const maxMessage = 128 << 20

// heard is a message that has come in.
type heard struct {
	kind   kind
	reply  uint32 // the serial it answers
	member string
	fault  string // name of the error
	types  string // of the body
	body   []byte
}

// asked is a call to be sent.
type asked struct {
	destination, path, face, member string
	types                           string
	body                            []byte
}

// message writes a call with its header.
func (a asked) message(serial uint32) []byte {
	var w writer
	w.b = append(w.b, 'l', byte(call), 0, 1)
	w.u32(uint32(len(a.body)))
	w.u32(serial)
	w.array(8, func() {
		for _, f := range []struct {
			code  byte
			sig   string
			value string
		}{
			{fieldPath, "o", a.path}, {fieldInterface, "s", a.face}, {fieldMember, "s", a.member},
			{fieldDestination, "s", a.destination}, {fieldSignature, "g", a.types},
		} {
			if f.value == "" {
				continue
			}
			w.align(8)
			w.b = append(w.b, f.code)
			w.signature(f.sig)
			if f.sig == "g" {
				w.signature(f.value)
				continue
			}
			w.text(f.value)
		}
	})
	w.align(8)
	return append(w.b, a.body...)
}

// writer marshals values; alignment counts from its beginning, and a body begins
// at a multiple of eight.
type writer struct{ b []byte }

func (w *writer) align(n int) {
	for len(w.b)%n != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *writer) u32(n uint32) {
	w.align(4)
	w.b = binary.LittleEndian.AppendUint32(w.b, n)
}

func (w *writer) u64(n uint64) {
	w.align(8)
	w.b = binary.LittleEndian.AppendUint64(w.b, n)
}

func (w *writer) text(s string) {
	w.u32(uint32(len(s)))
	w.b = append(append(w.b, s...), 0)
}

func (w *writer) signature(s string) {
	w.b = append(append(append(w.b, byte(len(s))), s...), 0)
}

// array writes what fill writes, with its length; align is that of an element.
func (w *writer) array(align int, fill func()) {
	w.u32(0)
	at := len(w.b) - 4
	w.align(align)
	from := len(w.b)
	fill()
	binary.LittleEndian.PutUint32(w.b[at:], uint32(len(w.b)-from))
}

// errShort is the one thing that can be wrong with a message's form here.
var errShort = errors.New("malformed D-Bus message")

// headLength is how long the fixed part of a header is, with the length of the
// array that follows.
const headLength = 16

// sizes tells, from the first sixteen bytes of a message, how many follow.
func sizes(head []byte) (rest int, err error) {
	if len(head) < headLength || head[0] != 'l' || head[3] != 1 {
		return 0, errShort
	}
	body, fields := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[12:])
	if body > maxMessage || fields > maxMessage {
		return 0, errShort
	}
	return int(fields+7)&^7 + int(body), nil
}

// parse reads a whole message.
func parse(b []byte) (heard, error) {
	rest, err := sizes(b)
	if err != nil || len(b) != headLength+rest {
		return heard{}, errShort
	}
	fields := int(binary.LittleEndian.Uint32(b[12:]))
	m := heard{kind: kind(b[1]), body: b[len(b)-int(binary.LittleEndian.Uint32(b[4:])):]}
	r := reader{b: b[:headLength+fields], at: headLength}
	for r.at < len(r.b) && !r.bad {
		r.align(8)
		code := r.byte()
		switch sig := r.signature(); sig {
		case "s", "o":
			m.named(code, r.text())
		case "g":
			m.named(code, r.signature())
		case "u":
			if n := r.u32(); code == fieldReply {
				m.reply = n
			}
		default:
			return heard{}, errShort // the specification has no other type in a header
		}
	}
	if r.bad {
		return heard{}, errShort
	}
	return m, nil
}

func (m *heard) named(code byte, value string) {
	switch code {
	case fieldMember:
		m.member = value
	case fieldError:
		m.fault = value
	case fieldSignature:
		m.types = value
	}
}

// reader unmarshals values; after bad it returns nothing but zeros.
type reader struct {
	b   []byte
	at  int
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b)-r.at {
		r.bad = true
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

func (r *reader) align(n int) { r.take((n - r.at%n) % n) }

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	r.align(4)
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) text() string {
	n := r.u32()
	if n > maxMessage {
		r.bad = true
	}
	s := string(r.take(int(n)))
	r.take(1)
	return s
}

func (r *reader) signature() string {
	s := string(r.take(int(r.byte())))
	r.take(1)
	return s
}

// texts reads a body of strings and paths, up to n of them; other types before
// them must be u.
func (m heard) texts() []string {
	r := reader{b: m.body}
	var out []string
	for _, t := range m.types {
		switch t {
		case 's', 'o':
			out = append(out, r.text())
		case 'u':
			r.u32()
		default:
			return out
		}
	}
	if r.bad {
		return nil
	}
	return out
}
