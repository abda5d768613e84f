package wire

import (
	"encoding/binary"
	"slices"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// UpdateCall gives a stopped container the ids that Userns asks for. Caller is
// on whose behalf root asks; nil: nobody's.
type UpdateCall struct {
	ID     string
	Userns Userns
	Caller *ask.Caller
}

// PackUpdate makes the call from an ask.
func PackUpdate(id string, u ask.Userns, caller *ask.Caller) UpdateCall {
	return UpdateCall{ID: id, Userns: PackContainer(ask.Container{Userns: u}).Userns, Caller: caller}
}

// Unpack returns the ask that was packed, checked again.
func (u UpdateCall) Unpack() (ask.Userns, error) {
	c, err := Container{Userns: u.Userns}.Unpack()
	return c.Userns, err
}

// AppendRange appends a range to the body of Data, which holds any number of
// them: JSON would take longer than all the rest of `fief ids` on a host with
// many containers.
func AppendRange(b []byte, r record.IDRange) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(r.First))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Last))
	b = append(b, bit(r.UID)|bit(r.GID)<<1|bit(!r.Since.IsZero())<<2)
	if !r.Since.IsZero() {
		b = binary.LittleEndian.AppendUint64(b, uint64(r.Since.UnixNano()))
	}
	for _, s := range []string{string(r.Kind), r.Holder, r.Container, r.Source, r.Why} {
		b = putString(b, s)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Overlaps)))
	for _, s := range r.Overlaps {
		b = putString(b, s)
	}
	return b
}

func bit(on bool) byte {
	if on {
		return 1
	}
	return 0
}

// usualRange is about how many bytes a container's lease takes.
const usualRange = 128

// Ranges reads the body of Data that AppendRange made, and appends to all.
func Ranges(all []record.IDRange, b []byte) ([]record.IDRange, error) {
	c := cursor{b: b}
	if len(all)+len(b)/usualRange > cap(all) { // more pieces follow: growing bit by bit copies all each time
		all = slices.Grow(all, max(len(all), 2*len(b)/usualRange))
	}
	for len(c.b) > 0 {
		r := record.IDRange{First: idmap.Host(c.uint32()), Last: idmap.Host(c.uint32())}
		flags := c.byte()
		r.UID, r.GID = flags&1 != 0, flags&2 != 0
		if flags&4 != 0 {
			r.Since = time.Unix(0, int64(c.uint64()))
		}
		r.Kind, r.Holder, r.Container, r.Source, r.Why = record.IDKind(c.string()), c.string(), c.string(), c.string(), c.string()
		n := c.uint32()
		if uint64(n)*4 > uint64(len(c.b)) {
			return all, broken("more overlaps than bytes")
		}
		for range n {
			r.Overlaps = append(r.Overlaps, c.string())
		}
		if c.short {
			return all, c.end()
		}
		all = append(all, r)
	}
	return all, nil
}
