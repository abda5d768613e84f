package idmap

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fief/internal/words/fault"
)

// world is the number of ids of the plain arrays that maps are compared with.
const world = 1 << 16

// draw makes a valid map inside the small world, and the array that says the
// same: host id of every inside id, -1 for none.
func draw(t *rapid.T, label string) (Map, []int) {
	array := make([]int, world)
	for i := range array {
		array[i] = -1
	}
	taken := make([]bool, world)
	var spans []Span
	for range rapid.IntRange(0, 8).Draw(t, label+" tries") {
		in := rapid.IntRange(0, world-1).Draw(t, label+" in")
		out := rapid.IntRange(0, world-1).Draw(t, label+" out")
		n := rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(1, world/4)).Draw(t, label+" n")
		if in+n > world || out+n > world || !isFree(array, taken, in, out, n) {
			continue
		}
		for i := range n {
			array[in+i] = out + i
			taken[out+i] = true
		}
		spans = append(spans, Span{Inside(in), Host(out), uint32(n)})
	}
	m, err := New(spans...)
	if err != nil {
		t.Fatalf("New(%v): %v", spans, err)
	}
	return m, array
}

func isFree(array []int, taken []bool, in, out, n int) bool {
	for i := range n {
		if array[in+i] >= 0 || taken[out+i] {
			return false
		}
	}
	return true
}

// same compares a map with its array, id by id.
func same(t *rapid.T, m Map, array []int) {
	size, highest := uint32(0), -1
	for id, want := range array {
		got, ok := m.ToHost(Inside(id))
		if ok != (want >= 0) || ok && got != Host(want) {
			t.Fatalf("%s: ToHost(%d) = %d, %v; want %d", m.List(), id, got, ok, want)
		}
		if !ok {
			continue
		}
		size, highest = size+1, id
		if back, ok := m.ToInside(got); !ok || back != Inside(id) {
			t.Fatalf("%s: ToInside(%d) = %d, %v; want %d", m.List(), got, back, ok, id)
		}
	}
	if m.Size() != size {
		t.Fatalf("%s: Size() = %d, want %d", m.List(), m.Size(), size)
	}
	if got, ok := m.MaxInside(); ok != (highest >= 0) || ok && got != Inside(highest) {
		t.Fatalf("%s: MaxInside() = %d, %v; want %d", m.List(), got, ok, highest)
	}
}

func TestMapIsItsArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, array := draw(t, "map")
		same(t, m, array)
	})
}

func TestCoversIsItsArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, array := draw(t, "map")
		first := rapid.IntRange(0, world-1).Draw(t, "first")
		n := rapid.IntRange(0, world-first).Draw(t, "n")
		want := true
		for _, host := range array[first : first+n] {
			want = want && host >= 0
		}
		if got := m.Covers(Inside(first), uint32(n)); got != want {
			t.Fatalf("%s: Covers(%d, %d) = %v", m.List(), first, n, got)
		}
	})
}

func TestInvertIsItsArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, array := draw(t, "map")
		inverse := make([]int, world)
		for i := range inverse {
			inverse[i] = -1
		}
		for in, host := range array {
			if host >= 0 {
				inverse[host] = in
			}
		}
		same(t, m.Invert(), inverse)
		if !m.Invert().Invert().Equal(m) {
			t.Fatalf("%s inverted twice is %s", m.List(), m.Invert().Invert().List())
		}
	})
}

func TestComposeIsItsArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		child, a := draw(t, "child")
		parent, b := draw(t, "parent")
		both := make([]int, world)
		for i := range both {
			both[i] = -1
			if a[i] >= 0 {
				both[i] = b[a[i]]
			}
		}
		got, err := child.Compose(parent)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, both)
	})
}

func TestComposeWithInverseIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, _ := draw(t, "map")
		got, err := m.Compose(m.Invert())
		if err != nil {
			t.Fatal(err)
		}
		if got.Size() != m.Size() {
			t.Fatalf("%s: composed with its inverse maps %d ids", m.List(), got.Size())
		}
		for _, s := range got.Spans() {
			if s.In != Inside(s.Out) {
				t.Fatalf("%s: composed with its inverse has %s", m.List(), s)
			}
		}
	})
}

func TestOverlapsIsItsArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one, a := draw(t, "one")
		two, b := draw(t, "two")
		hosts := make([]bool, world)
		for _, host := range a {
			if host >= 0 {
				hosts[host] = true
			}
		}
		want := false
		for _, host := range b {
			want = want || host >= 0 && hosts[host]
		}
		if one.Overlaps(two) != want || two.Overlaps(one) != want {
			t.Fatalf("%s and %s: Overlaps is not %v", one.List(), two.List(), want)
		}
	})
}

func TestWithIsItsArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, want := draw(t, "map")
		extra, b := draw(t, "extra")
		taken := make([]bool, world)
		for _, host := range b {
			if host >= 0 {
				taken[host] = true
			}
		}
		for id, host := range want {
			if host >= 0 && taken[host] {
				want[id] = -1
			}
			if b[id] >= 0 {
				want[id] = b[id]
			}
		}
		got, err := m.With(extra)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
	})
}

// A split map is the same map, and every line lies in one extent of the parent;
// it is refused when the parent has not every id.
func TestSplitAtIsItsArray(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, a := draw(t, "map")
		parent, b := draw(t, "parent")
		var lines Extents
		for _, s := range parent.Spans() { // cut where a merged map has no end
			at := rapid.Uint32Range(0, s.N-1).Draw(t, "cut")
			if at > 0 {
				lines = append(lines, s.part(0, uint64(at)))
			}
			lines = append(lines, s.part(uint64(at), uint64(s.N-at)))
		}
		possible := true
		for _, host := range a {
			possible = possible && (host < 0 || b[host] >= 0)
		}
		got, err := m.SplitAt(lines)
		if (err == nil) != possible {
			t.Fatalf("%s at %v: %v, %v", m.List(), lines, got, err)
		}
		if err != nil {
			return
		}
		if back, err := New(got...); err != nil || !back.Equal(m) {
			t.Fatalf("%s at %v: %v", m.List(), lines, got)
		}
		for _, s := range got {
			if !slices.ContainsFunc(lines, func(p Span) bool {
				return s.hosts().from >= p.insides().from && s.hosts().to <= p.insides().to
			}) {
				t.Fatalf("%s at %v: %s lies in no extent", m.List(), lines, s)
			}
		}
		if len(got) > len(m.spans)+len(lines) {
			t.Fatalf("%s at %v: cut into %v", m.List(), lines, got)
		}
	})
}

// New joins whatever continues itself, however it was cut up and shuffled.
func TestPiecesMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, _ := draw(t, "map")
		var pieces []Span
		for _, s := range m.Spans() {
			for s.N > 0 {
				n := rapid.Uint32Range(1, s.N).Draw(t, "n")
				pieces = append(pieces, s.part(0, uint64(n)))
				s = s.part(uint64(n), uint64(s.N-n))
			}
		}
		got, err := New(rapid.Permutation(pieces).Draw(t, "pieces")...)
		if err != nil || !got.Equal(m) {
			t.Fatalf("%v: %s, want %s (%v)", pieces, got.List(), m.List(), err)
		}
	})
}

func TestPrintedMapReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, _ := draw(t, "map")
		if m.IsZero() {
			return
		}
		list, err := ParseList(strings.Split(m.List(), ","))
		if err != nil || !list.Equal(m) {
			t.Fatalf("%s reads back as %s, %v", m.List(), list.List(), err)
		}
		kernel, err := ParseKernel([]byte(m.String()))
		if err != nil || !kernel.Equal(m) {
			t.Fatalf("%s reads back as %s, %v", m.String(), kernel.String(), err)
		}
	})
}

// chain is n entries that no merging can shorten.
func chain(n int, in, out func(i int) int64) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%d:%d:1", in(i), out(i))
	}
	return list
}

func sparse(start int64) func(int) int64 { return func(i int) int64 { return start + 2*int64(i) } }

func TestRefusedMapsNameTheEntry(t *testing.T) {
	long := chain(340, sparse(4_000_000_000), sparse(4_100_000_000))
	for _, c := range []struct {
		name, want string
		list       []string
	}{
		{"zero length", `cannot use id map entry 7:100:0: length is zero`, []string{"0:1000:5", "7:100:0"}},
		{"inside wraps", `cannot use id map entry 4294967290:0:6: container ids wrap past 4294967294`, []string{"4294967290:0:6"}},
		{"host wraps", `cannot use id map entry 0:4294967295:1: host ids wrap past 4294967294`, []string{"0:4294967295:1"}},
		{"everything and one", `cannot use id map entry 0:5:1: host ids overlap those of 0:0:4294967295`, []string{"0:5:1", "0:0:4294967295"}},
		{"inside overlap", `cannot use id map entry 9:5000:10: container ids overlap those of 0:1000:10`, []string{"9:5000:10", "0:1000:10"}},
		{"host overlap", `cannot use id map entry 100:1009:10: host ids overlap those of 0:1000:10`, []string{"100:1009:10", "0:1000:10"}},
		{"twice", `cannot use id map entry 0:1:1: host ids overlap those of 0:1:1`, []string{"0:1:1", "0:1:1"}},
		{"341 extents", `cannot use id map entry 680:2680:1: it is entry 341 and the kernel takes at most 340`, chain(341, sparse(0), sparse(2000))},
		{"340 long ones", `cannot use id map entry 4000000340:4100000340:1: entries 1 to 171 are 4104 bytes as text and the kernel takes at most 4095`, long},
		{"empty", `cannot use id map entry "": it has 1 parts`, []string{""}},
		{"one number", `cannot use id map entry "5": it has 1 parts`, []string{"0:1:1,5"}},
		{"four numbers", `cannot use id map entry "0:1:2:3": it has 4 parts`, []string{"0:1:2:3"}},
		{"sign", `cannot use id map entry "-1:1:1": "-1" is not a number from 0 to 4294967295`, []string{"-1:1:1"}},
		{"hexadecimal", `cannot use id map entry "0:0x10:1": "0x10" is not a number from 0 to 4294967295`, []string{"0:0x10:1"}},
		{"too large", `cannot use id map entry "0:1:4294967296": "4294967296" is not a number from 0 to 4294967295`, []string{"0:1:4294967296"}},
		{"space", `cannot use id map entry " 0:1:1": " 0" is not a number from 0 to 4294967295`, []string{" 0:1:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := ParseList(c.list)
			if err == nil {
				t.Fatalf("accepted as %s", m.List())
			}
			if got := err.Error(); got != c.want || !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
				t.Errorf("%s\nwant\n%s\nclass %s, hint %q", got, c.want, fault.ClassOf(err), fault.HintOf(err))
			}
		})
	}
}

func TestLargestMaps(t *testing.T) {
	whole, err := New(Span{0, 0, math.MaxUint32})
	if err != nil || whole.Size() != math.MaxUint32 {
		t.Errorf("0 0 4294967295: %v, size %d", err, whole.Size())
	}
	if m, err := ParseList(chain(340, sparse(0), sparse(5000))); err != nil || len(m.Spans()) != 340 {
		t.Errorf("340 extents: %v", err)
	}
	joined := chain(5000, func(i int) int64 { return int64(i) }, func(i int) int64 { return 9 + int64(i) })
	if m, err := ParseList(joined); err != nil || m.List() != "0:9:5000" {
		t.Errorf("5000 entries that continue each other: %s, %v", m.List(), err)
	}
	if m, err := ParseList([]string{"0:1000", "1:2000:5,6:10"}); err != nil || m.List() != "0:1000:1,1:2000:5,6:10:1" {
		t.Errorf("missing lengths: %s, %v", m.List(), err)
	}
}

func TestCheckRoot(t *testing.T) {
	full, _ := ParseList([]string{"0:1000:1"})
	high, _ := ParseList([]string{"5:1000:1", "1:3000:2"})
	for _, c := range []struct {
		pair Pair
		want string
	}{
		{Pair{full, full}, ""},
		{Pair{high, full}, "cannot use uid map entry 1:3000:2: it is the lowest and container id 0 stays unmapped: a container's first process has uid 0"},
		{Pair{full, high}, "cannot use gid map entry 1:3000:2: it is the lowest and container id 0 stays unmapped: a container's first process has gid 0"},
		{Pair{full, Map{}}, "cannot use gid map: it has no entries"},
	} {
		err := c.pair.CheckRoot()
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want || !fault.Is(err, fault.Invalid)) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// The cases of incus' shared/idmap/set_test.go, which has the host's ids first:
// there a later entry is added "safely", here it overrides.
func TestIncusVectors(t *testing.T) {
	for _, c := range []struct{ base, extra, want string }{
		{"0:1000:1000", "500:500:10", "0:1000:500,500:500:10,510:1510:490"},
		{"0:1000:1000", "0:500:10", "0:500:10,10:1010:990"},
		{"0:1000:1000", "995:500:10", "0:1000:995,995:500:10"},
	} {
		got, err := mapOf(t, c.base).With(mapOf(t, c.extra))
		if err != nil || got.List() != c.want {
			t.Errorf("%s with %s: %s, %v", c.base, c.extra, got.List(), err)
		}
	}
	base := mapOf(t, "0:165536:65536")
	for _, c := range []struct {
		other                string
		intersects, overlaps bool
	}{
		{"0:231071:65536", true, true}, {"0:231072:65536", true, false}, {"65535:231072:65536", true, false}, {"65536:231072:65536", false, false},
	} {
		other := mapOf(t, c.other)
		if _, err := New(append(base.Spans(), other.Spans()...)...); (err != nil) != c.intersects {
			t.Errorf("%s beside %s: %v", c.other, base.List(), err)
		}
		if base.Overlaps(other) != c.overlaps || other.Overlaps(base) != c.overlaps {
			t.Errorf("%s: Overlaps is not %v", c.other, c.overlaps)
		}
	}
}

func mapOf(t testing.TB, text string) Map {
	t.Helper()
	m, err := ParseList([]string{text})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Every way to a map that maps nothing leads to the zero Map: records and
// requests are compared with reflect.DeepEqual.
func TestNothingIsTheZeroMap(t *testing.T) {
	one := mapOf(t, "0:5:1")
	fromNew, _ := New([]Span{}...)
	composed, _ := one.Compose(mapOf(t, "9:9:1"))
	with, _ := Map{}.With(Map{})
	flags, _ := ParsePair([]string{"g0:5:1"}, nil)
	triples, _ := Grammar{}.ParseTriples(UID, []string{})
	kernel, _ := ParseKernel(nil)
	var read Map
	if err := read.UnmarshalJSON([]byte("[]")); err != nil {
		t.Error(err)
	}
	for i, m := range []Map{fromNew, composed, with, flags.UID, triples, kernel, read, Map{}.Invert()} {
		if !reflect.DeepEqual(m, Map{}) {
			t.Errorf("%d: %#v", i, m)
		}
	}
}

func TestPairWith(t *testing.T) {
	p := Pair{mapOf(t, "0:1000:10"), mapOf(t, "0:2000:10")}
	got, err := p.With(Pair{UID: mapOf(t, "5:7:1")})
	if err != nil || got.UID.List() != "0:1000:5,5:7:1,6:1006:4" || got.GID.List() != "0:2000:10" {
		t.Errorf("%s, %s, %v", got.UID.List(), got.GID.List(), err)
	}
	full := mapOf(t, strings.Join(chain(340, sparse(0), sparse(5000)), ","))
	if got, err := (Pair{p.UID, full}).With(Pair{GID: mapOf(t, "9999:1:1")}); !fault.Is(err, fault.Invalid) || !got.IsZero() {
		t.Errorf("341 extents: %v", err)
	}
}

func TestParseKernel(t *testing.T) {
	m, err := ParseKernel([]byte("         0     524288      65536\n     65536 4294967295          1\n"))
	if err != nil || m.List() != "0:524288:65536" {
		t.Errorf("%s, %v", m.List(), err)
	}
	for _, text := range []string{"0 1\n", "0 1 2 3\n", "x 1 2\n", "0 5 0\n", "\n"} {
		if _, err := ParseKernel([]byte(text)); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
