package wire

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Launch is the body of the verbs RunArgs and ExecArgs: a command line as the
// user typed it, for the daemon to parse. Args begin after the word "run" or
// "exec". Relative paths in it are relative to Dir.
type Launch struct {
	Dir  string
	Args []string
}

// Encode appends the launch to b.
func (l Launch) Encode(b []byte) []byte {
	b = putString(b, l.Dir)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(l.Args)))
	for _, a := range l.Args {
		b = putString(b, a)
	}
	return b
}

// DecodeLaunch reads what Encode wrote.
func DecodeLaunch(b []byte) (Launch, error) {
	c := cursor{b: b}
	l := Launch{Dir: c.string()}
	n := c.uint32()
	if uint64(n)*4 > uint64(len(c.b)) {
		return Launch{}, broken("more arguments than bytes")
	}
	for range n {
		l.Args = append(l.Args, c.string())
	}
	return l, c.end()
}

// EncodeRequest makes the body of a Request.
func EncodeRequest(v Verb, body []byte) []byte {
	return append([]byte{Version, byte(v)}, body...)
}

// DecodeRequest splits the body of a Request.
func DecodeRequest(b []byte) (Verb, []byte, error) {
	if len(b) < 2 {
		return 0, nil, broken("request without verb")
	}
	if b[0] != Version {
		return 0, nil, fault.New(fault.Unsupported, "answer request", "", "protocol version differs", "fief and fiefd are of different builds: install both from one build")
	}
	return Verb(b[1]), b[2:], nil
}

// StartedBody is the body of Started.
type StartedBody struct {
	ID string
	// Trace holds the doorways passed, when they were asked for.
	Trace []Stage
}

// Stage is a doorway and the time at which it was passed.
type Stage struct {
	Name string
	At   time.Duration
}

// Encode makes the message body.
func (s StartedBody) Encode() []byte {
	b := putString(nil, s.ID)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.Trace)))
	for _, t := range s.Trace {
		b = putString(b, t.Name)
		b = binary.LittleEndian.AppendUint64(b, uint64(t.At))
	}
	return b
}

// DecodeStarted reads the body of Started.
func DecodeStarted(b []byte) (StartedBody, error) {
	c := cursor{b: b}
	s := StartedBody{ID: c.string()}
	n := c.uint32()
	if uint64(n)*12 > uint64(len(c.b)) {
		return StartedBody{}, broken("more stages than bytes")
	}
	for range n {
		name := c.string()
		s.Trace = append(s.Trace, Stage{name, time.Duration(c.uint64())})
	}
	return s, c.end()
}

// ExitBody is the body of Exit.
type ExitBody struct {
	Code  int
	Error string
}

// Encode makes the message body.
func (e ExitBody) Encode() []byte {
	return putString(binary.LittleEndian.AppendUint32(nil, uint32(e.Code)), e.Error)
}

// DecodeExit reads the body of Exit.
func DecodeExit(b []byte) (ExitBody, error) {
	c := cursor{b: b}
	e := ExitBody{Code: int(int32(c.uint32()))}
	e.Error = c.string()
	return e, c.end()
}

// EncodeFailure makes the body of Failure. It keeps of err what a command line
// shows: class, exit code, text and hint.
func EncodeFailure(err error) []byte {
	b := []byte{byte(fault.ClassOf(err)), byte(fault.ExitCodeOf(err))}
	b = putString(b, err.Error())
	return putString(b, fault.HintOf(err))
}

// Refusal is what the daemon answered, as against what went wrong on the way
// to it.
type Refusal struct{ Fault *fault.Error }

// Error returns the daemon's words.
func (r *Refusal) Error() string { return r.Fault.Error() }

// Unwrap returns the fault.
func (r *Refusal) Unwrap() error { return r.Fault }

// DecodeFailure returns the fault that EncodeFailure was given as a *Refusal,
// or the fault of not understanding it.
func DecodeFailure(b []byte) error {
	if len(b) < 2 {
		return broken("failure without class")
	}
	c := cursor{b: b[2:]}
	text, hint := c.string(), c.string()
	if err := c.end(); err != nil {
		return err
	}
	e := fault.Say(fault.Class(b[0]), text)
	e.Hint, e.ExitCode = hint, int(b[1])
	return &Refusal{e}
}

// AppendLine appends a log line to the body of Data, which holds any number of
// them.
func AppendLine(b []byte, l record.LogLine) []byte {
	stream := byte(1)
	if l.Stream == "stderr" {
		stream = 2
	}
	if len(l.Attrs) > 0 {
		stream |= withAttrs
	}
	b = append(b, stream)
	b = binary.LittleEndian.AppendUint64(b, uint64(l.At.UnixNano()))
	b = putString(b, string(l.Text))
	if len(l.Attrs) == 0 {
		return b
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(l.Attrs)))
	for _, k := range slices.Sorted(maps.Keys(l.Attrs)) {
		b = putString(putString(b, k), l.Attrs[k])
	}
	return b
}

// withAttrs marks a line that has attributes behind its text.
const withAttrs = 0x80

// Lines calls each for every line in the body of Data, until it fails.
func Lines(b []byte, each func(record.LogLine) error) error {
	c := cursor{b: b}
	for len(c.b) > 0 {
		l := record.LogLine{Stream: "stdout"}
		kind := c.byte()
		if kind&^withAttrs == 2 {
			l.Stream = "stderr"
		}
		l.At = time.Unix(0, int64(c.uint64()))
		l.Text = []byte(c.string())
		if kind&withAttrs != 0 {
			l.Attrs = map[string]string{}
			for n := c.uint32(); n > 0 && !c.short; n-- {
				k := c.string()
				l.Attrs[k] = c.string()
			}
		}
		if c.short {
			return c.end()
		}
		if err := each(l); err != nil {
			return err
		}
	}
	return nil
}

// EncodeSize makes the body of Resize.
func EncodeSize(rows, cols uint16) []byte {
	b := binary.LittleEndian.AppendUint16(nil, rows)
	return binary.LittleEndian.AppendUint16(b, cols)
}

// DecodeSize reads the body of Resize; false when it is none.
func DecodeSize(b []byte) (rows, cols uint16, ok bool) {
	if len(b) != 4 {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), true
}

func putString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

// cursor reads a body from its start. Past the end everything reads as zero
// and short becomes true.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.b, c.short = nil, true
		return make([]byte, min(n, 8))
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) byte() byte     { return c.take(1)[0] }
func (c *cursor) uint32() uint32 { return binary.LittleEndian.Uint32(c.take(4)) }
func (c *cursor) uint64() uint64 { return binary.LittleEndian.Uint64(c.take(8)) }

func (c *cursor) string() string {
	n := c.uint32()
	if uint64(n) > uint64(len(c.b)) {
		c.b, c.short = nil, true
		return ""
	}
	return string(c.take(int(n)))
}

func (c *cursor) end() error {
	if c.short {
		return broken("message ends early")
	}
	if len(c.b) > 0 {
		return broken("bytes after the end of a message")
	}
	return nil
}
