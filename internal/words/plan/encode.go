package plan

import (
	"encoding/binary"
	"slices"
	"strconv"
	"unsafe"

	"fief/internal/words/fault"
)

// The encoded form is what the child reads in place: native 64-bit words, so
// little-endian, of the machine that made it. It travels from daemon to monitor
// on one machine between binaries of one Layout; it is not a storage format.
//
//	Header | rlimits | uid map | gid map | ops | data | relocations
//
// Relocations are the offsets of words in the data that hold addresses: whoever
// maps the plan adds the address it was mapped at.
//
// It is kept small: on its way from daemon to child it lies in five places, and
// where page faults are dear (a virtual machine without nested paging: 5 µs and
// more each) its length costs more than the making of it.

// Magic begins an encoded plan: "fplan" and the number of the layout.
const Magic = Layout<<40 | 0x6e_61_6c_70_66

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
	PIDSpace  uint32
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

	IOPriority  uint32
	SchedulerAt uint32 // 0: none, else a RawScheduler
	AffinityAt  uint32
	AffinityLen uint32
	OffsetsAt   uint32
	OffsetsLen  uint32
}

// The bits of Header.Bools.
const (
	HasOOM = 1 << iota
	OwnsStdio
	Twice  // the operations have a Fork
	Spawns // the operations have a Spawn
)

// RawRlimit is an encoded Rlimit.
type RawRlimit struct{ Resource, Soft, Hard uint64 }

// RawScheduler is struct sched_attr of its first version, 48 bytes
// (include/uapi/linux/sched/types.h, SCHED_ATTR_SIZE_VER0).
type RawScheduler struct {
	Size, Policy              uint32
	Flags                     uint64
	Nice                      int32
	Priority                  uint32
	Runtime, Deadline, Period uint64
}

// RawOp is an encoded Op. Bit i of Slots says that Args[i] is a slot's number
// and its value is meant, bit i of Addresses that it is an offset in the plan
// and the address is meant, bit i of Signed that it is a negative number; else
// it is one below 2^32. The mask of DropBounding is Args[0] with Args[1] above.
type RawOp struct {
	Args      [6]uint32
	Nr        uint16
	Step      uint16
	Call      uint16 // index of the operation in its step
	Skip      uint16
	OnIgnored uint16
	Save      uint16
	Kind      uint8
	Slots     uint8
	Addresses uint8
	Signed    uint8
	Ignore    [MaxIgnore]uint8
	Remember  uint8
	Positive  uint8
	Pad       [2]uint8
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

// Encoder encodes plans one after another into memory that it keeps. The zero
// value is ready for use.
type Encoder struct {
	head    Header
	out     []byte
	known   [2]map[string]uint32 // content → offset, by the number of zeroes after it
	scratch map[string]uint32
	relocs  []uint32
	err     error
}

// Encode returns the plan in the form the child reads: see Encoder.Encode. The
// bytes are valid as long as the plan's Memory.
func (p *Plan) Encode() ([]byte, error) {
	if p.Memory != nil {
		return p.Memory.Encode(p)
	}
	return new(Encoder).Encode(p)
}

// Encode returns the plan in the form the child reads. The bytes are valid
// until the next call. Errors are of class Internal: a plan made by launch
// always encodes unless it is too large, which is Invalid.
func (e *Encoder) Encode(p *Plan) ([]byte, error) {
	ops := 0
	for i := range p.Steps {
		ops += len(p.Steps[i].Ops)
	}
	if ops >= maxItems || len(p.Slots) >= maxItems || len(p.Steps) >= maxItems {
		return nil, fault.New(fault.Invalid, "encode launch plan", "", "too many steps", "use fewer mounts")
	}
	e.reset(ops)
	e.front(p, ops)
	at := e.room(ops * opSize)
	e.head.OpsAt = at
	for i := range p.Steps {
		list := p.Steps[i].Ops
		for j := range list {
			if j+1+list[j].Skip > len(list) || j+1+list[j].OnIgnored > len(list) {
				e.fail("operation " + strconv.Itoa(j) + " of step " + strconv.Itoa(i) + " skips past its step")
			}
			if list[j].Kind == Spawn {
				e.head.Bools |= Spawns
			}
			if list[j].Kind == Fork {
				if e.head.Bools&Twice != 0 {
					e.fail("two forks")
				}
				e.head.Bools |= Twice
			}
			op := e.op(&list[j], i, j) // may move e.out
			if e.err != nil {
				return nil, e.err
			}
			*(*RawOp)(unsafe.Pointer(&e.out[at])) = op
			at += uint32(opSize)
		}
	}
	return e.end()
}

// Forget drops what the last plan was made of. Its bytes become invalid.
func (e *Encoder) Forget() {
	clear(e.known[0])
	clear(e.known[1])
	clear(e.scratch)
}

// usualData is what a plan has beside its operations; more is grown.
const usualData = 12 << 10

func (e *Encoder) reset(ops int) {
	if e.scratch == nil {
		e.known, e.scratch = [2]map[string]uint32{{}, {}}, map[string]uint32{}
	}
	e.Forget()
	e.relocs, e.err, e.head = e.relocs[:0], nil, Header{}
	if need := headerSize + ops*opSize + usualData; cap(e.out) < need {
		e.out = make([]byte, 0, need)
	}
	e.out = e.out[:0]
	e.room(headerSize)
}

// front lays out everything before the operations.
func (e *Encoder) front(p *Plan, ops int) {
	c := &p.Clone
	h := &e.head
	*h = Header{
		Magic: Magic, Files: uint32(len(p.Files)), Slots: uint32(len(p.Slots)), Ops: uint32(ops),
		PIDSpace: uint32(c.PIDSpace), Rlimits: uint32(len(c.Rlimits)), Flags: c.Flags, Owner: c.Owner,
		StdioUID: c.StdioUID, StdioGID: c.StdioGID, Cgroup: uint32(c.Cgroup),
		UIDMapLen: uint32(len(c.UIDMap)), GIDMapLen: uint32(len(c.GIDMap)),
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
	h.RlimitsAt = e.room(24 * len(c.Rlimits))
	for i, r := range c.Rlimits {
		e.words(int(h.RlimitsAt)+24*i, uint64(r.Resource), r.Soft, r.Hard)
	}
	h.UIDMapAt, h.GIDMapAt = e.text(c.UIDMap, 0), e.text(c.GIDMap, 0)
	h.IOPriority = c.IOPriority
	h.AffinityAt, h.AffinityLen = e.text(c.Affinity, 0), uint32(len(c.Affinity))
	h.OffsetsAt, h.OffsetsLen = e.text(c.TimeOffsets, 0), uint32(len(c.TimeOffsets))
	if s := c.Scheduler; s != nil {
		raw := RawScheduler{uint32(unsafe.Sizeof(RawScheduler{})), s.Policy, s.Flags, s.Nice, s.Priority, s.Runtime, s.Deadline, s.Period}
		h.SchedulerAt = e.room(int(raw.Size))
		*(*RawScheduler)(unsafe.Pointer(&e.out[h.SchedulerAt])) = raw
	}
}

// end appends the relocations and fills in the header.
func (e *Encoder) end() ([]byte, error) {
	h := &e.head
	h.RelocsAt, h.Relocs = e.room(4*len(e.relocs)), uint32(len(e.relocs))
	h.Size = uint32(len(e.out))
	h.StampsAt = e.scratch[StampName]
	if e.err != nil {
		return nil, e.err
	}
	if len(e.relocs) > 0 {
		copy(unsafe.Slice((*uint32)(unsafe.Pointer(&e.out[h.RelocsAt])), len(e.relocs)), e.relocs)
	}
	*(*Header)(unsafe.Pointer(&e.out[0])) = *h
	return e.out, nil
}

// op encodes one operation.
func (e *Encoder) op(o *Op, step, call int) RawOp {
	r := RawOp{
		Nr: uint16(o.Nr), Step: uint16(step), Call: uint16(call), Skip: uint16(o.Skip), OnIgnored: uint16(o.OnIgnored),
		Save: uint16(o.Save), Kind: uint8(o.Kind), Remember: bit(o.Remember), Positive: bit(o.Positive),
	}
	if len(o.Args) > len(r.Args) || o.Nr > 1<<16-1 {
		e.fail("operation " + o.Name + " does not fit")
		return r
	}
	for i := range o.Args {
		a := &o.Args[i]
		v, address := e.arg(a)
		r.Args[i] = uint32(v)
		switch {
		case address:
			r.Addresses |= 1 << i
		case a.kind == argSlot && o.Kind == Call:
			r.Slots |= 1 << i
		case o.Kind == DropBounding:
			r.Args[i+1] = uint32(v >> 32)
		case int64(v) < 0 && int64(v) >= -1<<31:
			r.Signed |= 1 << i
		case v>>32 != 0:
			e.fail("an argument of operation " + o.Name + " does not fit")
		}
	}
	for i, n := range o.Ignore {
		r.Ignore[i] = uint8(n) // all errnos there are have numbers below 134
	}
	return r
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// arg returns the value of an argument and whether it is an address.
func (e *Encoder) arg(a *Arg) (uint64, bool) {
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
func (e *Encoder) constant(s string, tail int) uint32 {
	if at, ok := e.known[tail][s]; ok {
		return at
	}
	at := e.text(s, tail)
	e.known[tail][s] = at
	return at
}

// text places s, followed by tail zeroes.
func (e *Encoder) text(s string, tail int) uint32 {
	at := e.room(len(s) + tail)
	if e.err == nil {
		copy(e.out[at:], s)
	}
	return at
}

func (e *Encoder) shared(name string, size int) uint32 {
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

func (e *Encoder) array(list []Arg) uint32 {
	at := e.room(8 * len(list))
	for i := range list {
		v, address := e.arg(&list[i])
		word := int(at) + 8*i
		e.words(word, v)
		if address {
			e.relocs = append(e.relocs, uint32(word))
		}
	}
	return at
}

// room takes n zeroed bytes, aligned to 8, and returns their offset.
func (e *Encoder) room(n int) uint32 {
	at := len(e.out)
	if e.err != nil || at+n > MaxSize-8 {
		if e.err == nil {
			e.err = fault.New(fault.Invalid, "encode launch plan", "", "too large", "shorten arguments and environment")
		}
		return 0
	}
	if cap(e.out)-at < n+7 {
		e.out = slices.Grow(e.out, n+7)
	}
	e.out = e.out[:at+(n+7)&^7]
	clear(e.out[at:])
	return uint32(at)
}

func (e *Encoder) fail(why string) {
	if e.err == nil {
		e.err = fault.New(fault.Internal, "encode launch plan", "", why, "")
	}
}

// words writes 64-bit words at offset at, which is room's.
func (e *Encoder) words(at int, list ...uint64) {
	if e.err != nil {
		return
	}
	for i, w := range list {
		binary.NativeEndian.PutUint64(e.out[at+8*i:], w)
	}
}
