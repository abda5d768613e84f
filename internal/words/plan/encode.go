package plan

import (
	"slices"
	"strconv"
	"unsafe"

	"fief/internal/words/fault"
)

// The encoded form is what the child reads in place: native 64-bit words, so
// little-endian, of the machine that made it. It travels from daemon to monitor
// on one machine between binaries of one build; it is not a storage format.
//
//	Header | rlimits | joins | uid map | gid map | ops | relocations | data
//
// Relocations are the offsets of words that hold addresses: whoever maps the
// plan adds the address it was mapped at.

// Magic begins an encoded plan; its last byte is the version of the layout.
const Magic = 0x01_6e_61_6c_70_66 // "fplan" 1

// Header is the beginning of an encoded plan. Offsets are from its first byte.
type Header struct {
	Magic     uint64
	Size      uint32 // of everything
	Files     uint32
	Slots     uint32
	Ops       uint32
	OpsAt     uint32
	Relocs    uint32
	RelocsAt  uint32
	DataAt    uint32
	Joins     uint32
	JoinsAt   uint32
	Rlimits   uint32
	RlimitsAt uint32
	UIDMapAt  uint32
	UIDMapLen uint32
	GIDMapAt  uint32
	GIDMapLen uint32
	Flags     uint64
	Bools     uint32
	Owner     uint32
	StdioUID  uint32
	StdioGID  uint32
	OOM       int32
	Cgroup    uint32
	Stdio     [3]uint32 // slots of stdin, stdout, stderr
	Stamps    uint32    // number of time stamps
	StampsAt  uint32
	Report    uint32 // slot that is given the report socket
}

// The bits of Header.Bools.
const (
	HasOOM = 1 << iota
	OwnsStdio
)

// RawJoin is an encoded Join.
type RawJoin struct {
	Flag uint64
	Slot uint64
}

// RawRlimit is an encoded Rlimit.
type RawRlimit struct{ Resource, Soft, Hard uint64 }

// RawOp is an encoded Op. Bit i of Slots says that Args[i] is a slot's number
// and its value is meant.
type RawOp struct {
	Args      [6]uint64
	Nr        uint32
	Step      uint16
	Call      uint16 // index of the operation in its step
	Skip      uint16
	OnIgnored uint16
	Save      uint16
	Kind      uint8
	Slots     uint8
	Ignore    [MaxIgnore]uint16
	Remember  uint8
	Positive  uint8
	Pad       [6]uint8
}

const (
	headerSize = int(unsafe.Sizeof(Header{}))
	opSize     = int(unsafe.Sizeof(RawOp{}))
	// MaxSize bounds an encoded plan. argv and the environment are in it, whose
	// limit in the kernel is a quarter of the stack's, 2 MiB by default (execve(2)).
	MaxSize = 8 << 20
	// maxItems bounds steps, operations and slots, which are numbered in 16 bits.
	maxItems = 1 << 15
)

// StampName is the scratch memory that holds time stamps: one struct timespec
// per stamp.
const StampName = "stamps"

// MaxStamps is the number of time stamps a plan has room for.
const MaxStamps = 8

// ReportName is the slot that holds the child's end of the report socket.
const ReportName = "report"

type encoder struct {
	head    Header
	data    []byte
	dataAt  int
	known   [2]map[string]uint32 // content → offset in data, by the number of zeroes after it
	scratch map[string]uint32
	relocs  []uint32
	err     error
}

// Encode returns the plan in the form the child reads. Errors are of class
// Internal: a plan made by launch always encodes unless it is too large, which
// is Invalid.
func (p *Plan) Encode() ([]byte, error) {
	ops := 0
	for _, s := range p.Steps {
		ops += len(s.Ops)
	}
	if ops >= maxItems || len(p.Slots) >= maxItems || len(p.Steps) >= maxItems {
		return nil, fault.New(fault.Invalid, "encode launch plan", "", "too many steps", "use fewer mounts")
	}
	e := &encoder{known: [2]map[string]uint32{{}, {}}, scratch: map[string]uint32{}}
	front := e.front(p, ops)
	raw := make([]RawOp, 0, ops)
	for i, s := range p.Steps {
		for j, o := range s.Ops {
			if j+1+o.Skip > len(s.Ops) || j+1+o.OnIgnored > len(s.Ops) {
				e.fail("operation " + strconv.Itoa(j) + " of step " + strconv.Itoa(i) + " skips past its step")
			}
			raw = append(raw, e.op(o, i, j, int(e.head.OpsAt)+len(raw)*opSize))
		}
	}
	if e.err != nil {
		return nil, e.err
	}
	if e.dataAt+len(e.data)+4*len(e.relocs)+8 > MaxSize {
		return nil, fault.New(fault.Invalid, "encode launch plan", "", "too large", "shorten arguments and environment")
	}
	return e.join(front, raw), nil
}

// front lays out everything before the operations, whose offset it fixes.
func (e *encoder) front(p *Plan, ops int) []byte {
	c := &p.Clone
	h := &e.head
	*h = Header{
		Magic: Magic, Files: uint32(len(p.Files)), Slots: uint32(len(p.Slots)), Ops: uint32(ops),
		Joins: uint32(len(c.Joins)), Rlimits: uint32(len(c.Rlimits)), Flags: c.Flags, Owner: c.Owner,
		StdioUID: c.StdioUID, StdioGID: c.StdioGID, Cgroup: uint32(c.Cgroup),
	}
	if c.OOMScoreAdj != nil {
		h.OOM = int32(*c.OOMScoreAdj)
		h.Bools |= HasOOM
	}
	if c.StdioOwned {
		h.Bools |= OwnsStdio
	}
	for i, s := range p.Slots {
		if s == ReportName {
			h.Report = uint32(i + 1)
		}
	}
	for i, f := range p.Files {
		switch f {
		case "stdin":
			h.Stdio[0] = uint32(i + 1)
		case "stdout":
			h.Stdio[1] = uint32(i + 1)
		case "stderr":
			h.Stdio[2] = uint32(i + 1)
		}
	}
	var b []byte
	h.RlimitsAt = uint32(headerSize)
	for _, r := range c.Rlimits {
		b = words(b, uint64(r.Resource), r.Soft, r.Hard)
	}
	h.JoinsAt = uint32(headerSize + len(b))
	for _, j := range c.Joins {
		b = words(b, j.Flag, uint64(j.Slot))
	}
	h.UIDMapAt, h.UIDMapLen = uint32(headerSize+len(b)), uint32(len(c.UIDMap))
	b = align(append(b, c.UIDMap...))
	h.GIDMapAt, h.GIDMapLen = uint32(headerSize+len(b)), uint32(len(c.GIDMap))
	b = align(append(b, c.GIDMap...))
	h.OpsAt = uint32(headerSize + len(b))
	e.dataAt = int(h.OpsAt) + ops*opSize
	return b
}

func (e *encoder) join(front []byte, raw []RawOp) []byte {
	h := &e.head
	h.DataAt = uint32(e.dataAt)
	e.data = align(e.data)
	h.RelocsAt, h.Relocs = uint32(e.dataAt+len(e.data)), uint32(len(e.relocs))
	h.Size = uint32(int(h.RelocsAt) + (4*len(e.relocs)+7)&^7)
	if at, ok := e.scratch[StampName]; ok {
		h.StampsAt = at
	}
	out := make([]byte, 0, h.Size)
	out = append(out, unsafe.Slice((*byte)(unsafe.Pointer(h)), headerSize)...)
	out = append(out, front...)
	if len(raw) > 0 {
		out = append(out, unsafe.Slice((*byte)(unsafe.Pointer(&raw[0])), len(raw)*opSize)...)
	}
	out = append(out, e.data...)
	for _, r := range e.relocs {
		out = append(out, byte(r), byte(r>>8), byte(r>>16), byte(r>>24))
	}
	return align(out)
}

// op encodes one operation that will lie at offset at.
func (e *encoder) op(o Op, step, call, at int) RawOp {
	r := RawOp{
		Nr: o.Nr, Step: uint16(step), Call: uint16(call), Skip: uint16(o.Skip), OnIgnored: uint16(o.OnIgnored),
		Save: uint16(o.Save), Kind: uint8(o.Kind),
	}
	if len(o.Args) > len(r.Args) {
		e.fail("operation " + o.Name + " has too many arguments")
		return r
	}
	for i, a := range o.Args {
		v, address := e.arg(a)
		r.Args[i] = v
		if address {
			e.relocs = append(e.relocs, uint32(at+8*i))
		}
		if a.kind == argSlot && o.Kind == Call {
			r.Slots |= 1 << i
		}
	}
	for i, n := range o.Ignore {
		r.Ignore[i] = uint16(n)
	}
	if o.Remember {
		r.Remember = 1
	}
	if o.Positive {
		r.Positive = 1
	}
	return r
}

// arg returns the value of an argument and whether it is an address.
func (e *encoder) arg(a Arg) (uint64, bool) {
	switch a.kind {
	case argString:
		return uint64(e.constant(a.data, 1)), true
	case argBytes:
		return uint64(e.constant(a.data, 0)) + uint64(a.plus), true
	case argScratch:
		return uint64(e.shared(a.data, int(a.n>>32)) + uint32(a.n)), true
	case argWords:
		return uint64(e.array(a.more.words)), true
	}
	return a.n, false
}

// constant places s, followed by tail zeroes, once.
func (e *encoder) constant(s string, tail int) uint32 {
	known := e.known[tail]
	if at, ok := known[s]; ok {
		return at
	}
	at := e.room(len(s) + tail)
	copy(e.data[int(at)-e.dataAt:], s)
	known[s] = at
	return at
}

func (e *encoder) shared(name string, size int) uint32 {
	if at, ok := e.scratch[name]; ok {
		return at
	}
	at := e.room(size)
	e.scratch[name] = at
	if name == StampName {
		e.head.Stamps = uint32(size / 16)
	}
	return at
}

func (e *encoder) array(list []Arg) uint32 {
	at := e.room(8 * len(list))
	for i, a := range list {
		v, address := e.arg(a)
		word := int(at) + 8*i
		put(e.data[word-e.dataAt:], v)
		if address {
			e.relocs = append(e.relocs, uint32(word))
		}
	}
	return at
}

// room takes n zeroed bytes, aligned to 8, and returns their offset.
func (e *encoder) room(n int) uint32 {
	at := e.dataAt + len(e.data)
	if at+n > MaxSize {
		e.err = fault.New(fault.Invalid, "encode launch plan", "", "too large", "shorten arguments and environment")
		return uint32(e.dataAt)
	}
	if cap(e.data)-len(e.data) < n+7 {
		e.data = slices.Grow(e.data, max(n+7, 16<<10))
	}
	at0 := len(e.data)
	e.data = e.data[:at0+(n+7)&^7]
	clear(e.data[at0:])
	return uint32(at)
}

func (e *encoder) fail(why string) {
	e.err = fault.New(fault.Internal, "encode launch plan", "", why, "")
}

func words(b []byte, list ...uint64) []byte {
	for _, w := range list {
		var x [8]byte
		put(x[:], w)
		b = append(b, x[:]...)
	}
	return b
}

func put(b []byte, w uint64) {
	for i := range 8 {
		b[i] = byte(w >> (8 * i))
	}
}

func align(b []byte) []byte {
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}
