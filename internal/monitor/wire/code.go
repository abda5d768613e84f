package wire

import (
	"encoding/binary"

	"fief/internal/words/fault"
)

// coder walks the fields of a message once to write them and once to read
// them: one list of fields for both directions, so that they cannot differ.
// The first field that does not fit sets bad, and everything after it is
// ignored.
type coder struct {
	buf     []byte // written so far, or left to read
	reading bool
	bad     bool
}

// take returns the next n bytes when reading.
func (c *coder) take(n int) []byte {
	if c.bad || n > len(c.buf) {
		c.bad = true
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

func (c *coder) u8(p *uint8) {
	if !c.reading {
		c.buf = append(c.buf, *p)
	} else if b := c.take(1); b != nil {
		*p = b[0]
	}
}

func (c *coder) u16(p *uint16) {
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint16(c.buf, *p)
	} else if b := c.take(2); b != nil {
		*p = binary.LittleEndian.Uint16(b)
	}
}

func (c *coder) u32(p *uint32) {
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint32(c.buf, *p)
	} else if b := c.take(4); b != nil {
		*p = binary.LittleEndian.Uint32(b)
	}
}

func (c *coder) u64(p *uint64) {
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, *p)
	} else if b := c.take(8); b != nil {
		*p = binary.LittleEndian.Uint64(b)
	}
}

// late is a field that earlier builds do not have: their messages end before it,
// and that it is zero is said in the same way.
func (c *coder) late(p *uint32) {
	if c.reading && len(c.buf) == 0 || !c.reading && *p == 0 {
		return
	}
	c.u32(p)
	c.bad = c.bad || *p == 0
}

func (c *coder) i32(p *int32) {
	u := uint32(*p)
	c.u32(&u)
	*p = int32(u)
}

func (c *coder) i64(p *int64) {
	u := uint64(*p)
	c.u64(&u)
	*p = int64(u)
}

// flag accepts 0 and 1 only: each message has exactly one encoding.
func (c *coder) flag(p *bool) {
	var u uint8
	if *p {
		u = 1
	}
	c.u8(&u)
	c.bad = c.bad || u > 1
	*p = u == 1
}

func (c *coder) bytes(p *[]byte) {
	n := uint32(len(*p))
	c.u32(&n)
	if !c.reading {
		c.buf = append(c.buf, *p...)
	} else if b := c.take(int(n)); len(b) > 0 {
		*p = append([]byte(nil), b...) // the buffer is used again
	}
}

func (c *coder) text(p *string) {
	n := uint32(len(*p))
	c.u32(&n)
	if !c.reading {
		c.buf = append(c.buf, *p...)
	} else {
		*p = string(c.take(int(n)))
	}
}

// count walks the length of a list whose elements take at least least bytes
// each, so that a length cannot ask for more memory than its message fills.
func (c *coder) count(n, least int) int {
	u := uint32(n)
	c.u32(&u)
	if c.reading && uint64(u)*uint64(least) > uint64(len(c.buf)) {
		c.bad = true
	}
	if c.bad {
		return 0
	}
	return int(u)
}

func (c *coder) texts(p *[]string) {
	if n := c.count(len(*p), 4); c.reading && n > 0 {
		*p = make([]string, n)
	}
	for i := range *p {
		c.text(&(*p)[i])
	}
}

func (c *coder) numbers(p *[]uint32) {
	if n := c.count(len(*p), 4); c.reading && n > 0 {
		*p = make([]uint32, n)
	}
	for i := range *p {
		c.u32(&(*p)[i])
	}
}

func (m *Hello) fields(c *coder) {
	c.u32(&m.Version)
	c.text(&m.Label)
	c.u32(&m.PID)
	c.text(&m.ID)
	c.flag(&m.Refused)
	c.late(&m.Plans)
}

func (m *Adopt) fields(c *coder) {
	c.text(&m.ID)
	c.text(&m.Dir)
	c.u32(&m.PID)
	c.i64(&m.Started)
}

func (m *Start) fields(c *coder) {
	c.text(&m.ID)
	c.text(&m.Dir)
	m.Log.fields(c)
	m.Proc.fields(c)
	m.Net.fields(c)
}

func (n *Net) fields(c *coder) {
	c.bytes(&n.Outside)
	c.numbers(&n.Spaces)
	c.texts(&n.Settings)
	c.bytes(&n.Inside)
	if k := c.count(len(n.Devices), 8); c.reading && k > 0 {
		n.Devices = make([]NetDevice, k)
	}
	for i := range n.Devices {
		c.text(&n.Devices[i].Name)
		c.numbers(&n.Devices[i].At)
	}
	c.u32(&n.Port)
	c.flag(&n.Wait)
}

func (l *Log) fields(c *coder) {
	c.text(&l.Driver)
	c.text(&l.Path)
	c.i64(&l.MaxSize)
	c.u32(&l.MaxFile)
	c.flag(&l.Compress)
	c.i64(&l.Buffer)
	c.text(&l.Attrs)
	c.texts(&l.Fields)
}

func (m *Exec) fields(c *coder) {
	c.text(&m.ID)
	m.Proc.fields(c)
}

func (p *Proc) fields(c *coder) {
	c.flag(&p.TTY)
	c.flag(&p.OpenStdin)
	c.flag(&p.StdinOnce)
	c.u16(&p.Rows)
	c.u16(&p.Cols)
	c.bytes(&p.Plan)
	if n := c.count(len(p.Slots), 1); c.reading && n > 0 {
		p.Slots = make([]Slot, n)
	}
	for i := range p.Slots {
		c.u8((*uint8)(&p.Slots[i]))
		c.bad = c.bad || p.Slots[i] > SlotPIDFD
	}
	if n := c.count(len(p.Attach), 5); c.reading && n > 0 {
		p.Attach = make([]Attachment, n)
	}
	for i := range p.Attach {
		p.Attach[i].fields(c)
	}
}

func (a *Attachment) fields(c *coder) {
	c.u8(&a.Has)
	c.bad = c.bad || a.Has >= HasAlive<<1
	c.bytes(&a.Keys)
}

func (m *Attach) fields(c *coder) {
	c.text(&m.Target)
	m.Client.fields(c)
}

func (m *Signal) fields(c *coder) {
	c.text(&m.Target)
	c.u32(&m.Number)
}

func (m *Resize) fields(c *coder) {
	c.text(&m.Target)
	c.u16(&m.Rows)
	c.u16(&m.Cols)
}

func (m *Query) fields(*coder) {}

func (m *Ack) fields(c *coder) { c.u64(&m.Number) }

func (m *Done) fields(c *coder) {
	c.u8((*uint8)(&m.Kind))
	c.u32(&m.PID)
	c.i32(&m.Step)
	c.i32(&m.Call)
	c.u32(&m.Errno)
	c.u8(&m.Class)
	c.text(&m.Text)
	c.text(&m.Hint)
	c.bad = c.bad || m.Kind > KindFault
}

func (m *Status) fields(c *coder) {
	c.text(&m.ID)
	c.u32(&m.PID)
	c.i64(&m.Started)
	if n := c.count(len(m.Execs), 8); c.reading && n > 0 {
		m.Execs = make([]ExecStatus, n)
	}
	for i := range m.Execs {
		c.text(&m.Execs[i].ID)
		c.u32(&m.Execs[i].PID)
	}
}

func (m *Exited) fields(c *coder) {
	c.u64(&m.Number)
	c.text(&m.Target)
	c.i32(&m.Code)
	c.u32(&m.Signal)
	c.i64(&m.At)
}

func (m *Health) fields(c *coder) {
	c.i64(&m.Interval)
	c.i64(&m.Timeout)
	c.i64(&m.StartPeriod)
	c.i64(&m.StartInterval)
	c.u32(&m.Retries)
	m.Proc.fields(c)
}

func (m *CheckNow) fields(*coder) {}

func (m *Checked) fields(c *coder) {
	c.u8((*uint8)(&m.State))
	c.bad = c.bad || m.State > Unhealthy
	c.u32(&m.Streak)
	if n := c.count(len(m.Results), 24); c.reading && n > 0 {
		m.Results = make([]Check, n)
	}
	for i := range m.Results {
		r := &m.Results[i]
		c.i64(&r.Start)
		c.i64(&r.End)
		c.i32(&r.Code)
		c.text(&r.Output)
	}
}

func (m *Other) fields(*coder) {}

// Append adds the encoding of m to buf: one byte for the type, then its fields.
func Append(buf []byte, m Message) []byte {
	c := coder{buf: append(buf, byte(m.op()))}
	m.fields(&c)
	return c.buf
}

// Decode reads what Append wrote. Missing and out-of-range bytes are Corrupt
// faults; an unknown type is an *Other, and bytes behind the fields that are
// known are a newer build's. Nothing of buf is kept.
func Decode(buf []byte) (Message, error) {
	if len(buf) == 0 {
		return nil, corrupt("empty message")
	}
	m := blank(Op(buf[0]))
	c := coder{buf: buf[1:], reading: true}
	m.fields(&c)
	if c.bad {
		return nil, corrupt("malformed message")
	}
	return m, nil
}

func corrupt(cause string) error {
	return fault.New(fault.Corrupt, "read message", "between daemon and monitor", cause, "")
}
