package plan

import (
	"unsafe"

	"fief/internal/words/fault"
)

// Decoded is an encoded plan that has been checked: every offset in it lies
// inside. Its slices alias the bytes it was decoded from.
type Decoded struct {
	*Header
	RlimitList []RawRlimit
	UIDMap     []byte
	GIDMap     []byte
	Affinity   []byte
	Offsets    []byte
	Scheduler  *RawScheduler // nil: none
	OpList     []RawOp
	RelocList  []uint32
}

// Decode checks an encoded plan and returns views into b, which must be aligned
// to 8 and stay as it is while they are in use. Errors are of class Corrupt.
func Decode(b []byte) (*Decoded, error) {
	if len(b) < headerSize || len(b) > MaxSize || uintptr(unsafe.Pointer(&b[0]))%8 != 0 {
		return nil, corrupt("bad size or alignment")
	}
	d := &Decoded{Header: (*Header)(unsafe.Pointer(&b[0]))}
	h := d.Header
	if h.Magic != Magic || int(h.Size) != len(b) {
		return nil, corrupt("not a launch plan of this layout")
	}
	if h.Slots >= maxItems || h.Files > h.Slots || h.Ops >= maxItems || h.Cgroup > h.Files || h.PIDSpace > h.Files || h.Report > h.Slots {
		return nil, corrupt("bad counts")
	}
	ok := true
	d.RlimitList = view[RawRlimit](b, h.RlimitsAt, h.Rlimits, &ok)
	d.UIDMap = view[byte](b, h.UIDMapAt, h.UIDMapLen, &ok)
	d.GIDMap = view[byte](b, h.GIDMapAt, h.GIDMapLen, &ok)
	d.Affinity = view[byte](b, h.AffinityAt, h.AffinityLen, &ok)
	d.Offsets = view[byte](b, h.OffsetsAt, h.OffsetsLen, &ok)
	if h.SchedulerAt != 0 {
		if list := view[RawScheduler](b, h.SchedulerAt, 1, &ok); ok {
			d.Scheduler = &list[0]
		}
	}
	d.OpList = view[RawOp](b, h.OpsAt, h.Ops, &ok)
	d.RelocList = view[uint32](b, h.RelocsAt, h.Relocs, &ok)
	if !ok || !inside(b, h.StampsAt, uint64(h.Stamps)*16) {
		return nil, corrupt("offset outside")
	}
	return d, d.check(b)
}

// check looks into the lists: slots, skips and relocations.
func (d *Decoded) check(b []byte) error {
	for _, s := range d.Stdio {
		if s > d.Files {
			return corrupt("bad stdio slot")
		}
	}
	forks, spawns := uint32(0), false
	for i := range d.OpList {
		if !d.checkOp(i, len(b)) {
			return corrupt("bad operation")
		}
		if d.OpList[i].Kind == uint8(Fork) {
			forks++
		}
		spawns = spawns || d.OpList[i].Kind == uint8(Spawn)
	}
	if forks > 1 || (forks == 1) != (d.Bools&Twice != 0) {
		return corrupt("bad fork")
	}
	if spawns != (d.Bools&Spawns != 0) {
		return corrupt("bad spawn")
	}
	for _, r := range d.RelocList {
		if r%8 != 0 || uint64(r)+8 > uint64(len(b)) || r < d.OpsAt {
			return corrupt("bad relocation")
		}
		if word := *(*uint64)(unsafe.Pointer(&b[r])); word >= uint64(len(b)) {
			return corrupt("address outside")
		}
	}
	return nil
}

func (d *Decoded) checkOp(i, size int) bool {
	o := &d.OpList[i]
	left := len(d.OpList) - i - 1
	if o.Kind > uint8(Spawn) || uint32(o.Save) > d.Slots || int(o.Skip) > left || int(o.OnIgnored) > left {
		return false
	}
	for a := range o.Args {
		if o.Slots&(1<<a) != 0 && (o.Args[a] == 0 || o.Args[a] > d.Slots) {
			return false
		}
		if o.Addresses&(1<<a) != 0 && int(o.Args[a]) >= size {
			return false
		}
	}
	switch OpKind(o.Kind) {
	case Patch:
		return o.Args[0] != 0 && o.Args[0] <= d.Slots && o.Addresses == 1<<1 && int(o.Args[1])+4 <= size
	case TestMem:
		return o.Addresses == 1<<0 && int(o.Args[0])+4 <= size
	case TestSlot, Copy:
		return o.Args[0] != 0 && o.Args[0] <= d.Slots
	case CloseAll:
		return max(o.Args[0], o.Args[1], o.Args[2], o.Args[3], o.Args[4]) <= d.Slots && o.Args[5] <= d.Files
	case Spawn:
		return o.Skip > 0 && int(o.Skip) < left
	case Fork:
		return o.Slots|o.Addresses|o.Signed == 0 && i+1 < len(d.OpList)
	}
	return true
}

func corrupt(why string) error {
	return fault.New(fault.Corrupt, "read launch plan", "", why, "daemon and monitor must know one layout of plans")
}

func inside(b []byte, at uint32, size uint64) bool { return uint64(at)+size <= uint64(len(b)) }

func view[T any](b []byte, at, n uint32, ok *bool) []T {
	var zero T
	if !inside(b, at, uint64(n)*uint64(unsafe.Sizeof(zero))) || uintptr(at)%unsafe.Alignof(zero) != 0 {
		*ok = false
		return nil
	}
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[at])), n)
}
