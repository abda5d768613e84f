package shift

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

func mapOf(t interface{ Fatal(...any) }, spans ...idmap.Span) idmap.Map {
	m, err := idmap.New(spans...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestForMounter(t *testing.T) {
	for _, c := range []struct {
		name  string
		spans []idmap.Span
		extra idmap.Inside
	}{
		{"one range", []idmap.Span{{In: 0, Out: 100000, N: 65536}}, idmap.Max},
		{"host 0 mapped", []idmap.Span{{In: 0, Out: 100000, N: 9}, {In: 9, Out: 0, N: 5}}, 9},
		{"up to the last id", []idmap.Span{{In: 0, Out: 1, N: idmap.Max}}, idmap.Max},
		{"hole below the last id", []idmap.Span{{In: 0, Out: 10, N: 5}, {In: 7, Out: 20, N: 3}, {In: idmap.Max, Out: 9, N: 1}}, 5},
		{"neighbours below the last id", []idmap.Span{{In: 0, Out: 10, N: 5}, {In: 5, Out: 20, N: 3}, {In: idmap.Max, Out: 9, N: 1}}, 8},
	} {
		m := mapOf(t, c.spans...)
		got, err := ForMounter(idmap.Pair{UID: m, GID: m})
		if in, ok := got.UID.ToInside(0); err != nil || !ok || in != c.extra || !got.GID.Equal(got.UID) {
			t.Errorf("%s: host 0 is %d, %v, %v", c.name, in, ok, err)
		}
	}
}

// TestForMounterKeeps: the wider map agrees with the map wherever that says
// something, and adds host 0 alone.
func TestForMounterKeeps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var spans []idmap.Span
		var in, out uint32
		for range rapid.IntRange(1, 8).Draw(t, "spans") {
			in += rapid.Uint32Range(0, 1000).Draw(t, "gap in")
			out += rapid.Uint32Range(0, 1000).Draw(t, "gap out")
			n := rapid.Uint32Range(1, 1000).Draw(t, "n")
			spans = append(spans, idmap.Span{In: idmap.Inside(in), Out: idmap.Host(out), N: n})
			in, out = in+n, out+n
		}
		m := mapOf(t, spans...)
		got, err := ForMounter(idmap.Pair{UID: m, GID: m})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := got.UID.ToInside(0); !ok {
			t.Fatal("host 0 is not mapped")
		}
		id := idmap.Inside(rapid.Uint32Range(0, in+2).Draw(t, "id"))
		want, was := m.ToHost(id)
		have, is := got.UID.ToHost(id)
		if was && have != want || !was && is && have != 0 {
			t.Fatalf("%d is %d, was %d", id, have, want)
		}
	})
}

func TestParseWay(t *testing.T) {
	for _, s := range []string{"", "idmapped", "attached", "metacopy", "reflink", "copy"} {
		if w, err := ParseWay(s); err != nil || string(w) != s {
			t.Error(w, err)
		}
	}
	for _, s := range []string{"plain", "chown", "Copy"} {
		if _, err := ParseWay(s); !fault.Is(err, fault.Invalid) {
			t.Error(s, err)
		}
	}
}

func TestShiftCapability(t *testing.T) {
	pair, err := idmap.Range(100000, 65536)
	if err != nil {
		t.Fatal(err)
	}
	v2 := make([]byte, sysx.CapSize2)
	binary.LittleEndian.PutUint32(v2, sysx.CapRevision2|1)
	binary.LittleEndian.PutUint32(v2[4:], 1<<unix.CAP_NET_RAW)
	for root, want := range map[uint32]uint32{0: 100000, 7: 100007, 70000: overflow} {
		value := v2
		if root != 0 {
			value = binary.LittleEndian.AppendUint32(append([]byte(nil), v2...), root)
			binary.LittleEndian.PutUint32(value, sysx.CapRevision3|1)
		}
		got, err := shiftCapability(value, pair)
		if err != nil || len(got) != sysx.CapSize3 || binary.LittleEndian.Uint32(got[sysx.CapSize2:]) != want {
			t.Errorf("root %d: % x, %v", root, got, err)
		}
		if binary.LittleEndian.Uint32(got) != sysx.CapRevision3|1 || string(got[4:sysx.CapSize2]) != string(v2[4:]) {
			t.Errorf("capabilities changed: % x", got)
		}
	}
}

// FuzzShifted: attributes come from images. Nothing panics, sizes of ACLs stay,
// and no id is left that the map does not have.
func FuzzShifted(f *testing.F) {
	for _, name := range []string{capability, aclAccess, aclDefault, "user.x"} {
		f.Add(name, []byte("\x02\x00\x00\x00\x02\x00\x07\x00\x0a\x00\x00\x00"))
		f.Add(name, []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
		f.Add(name, []byte{})
	}
	pair, err := idmap.Range(100000, 65536)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		got, err := shifted(name, value, pair)
		if err != nil {
			if !fault.Is(err, fault.Corrupt) {
				t.Error(err)
			}
			return
		}
		if name != aclAccess && name != aclDefault {
			return
		}
		if len(got) != len(value) {
			t.Fatalf("%d bytes became %d", len(value), len(got))
		}
		for e := got[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
			tag, id := binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint32(e[4:])
			if (tag == aclUser || tag == aclGroup) && id != overflow && (id < 100000 || id >= 165536) {
				t.Errorf("id %d is left", id)
			}
		}
	})
}
