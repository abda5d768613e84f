package idmap

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// largest is a map of as many extents as the kernel takes, none of which
// continues another, and its host ids are in no order.
func largest(b testing.TB) Map {
	b.Helper()
	var spans []Span
	for i, at := range rand.New(rand.NewPCG(1, 2)).Perm(MaxExtents) {
		spans = append(spans, Span{Inside(3 * i), Host(5 * at), 2})
	}
	m, err := New(spans...)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// The promise is 50 µs for reading 340 entries and for each of the operations.
func BenchmarkParse340(b *testing.B) {
	m := largest(b)
	text, flags := []byte(m.String()), strings.Split(m.List(), ",")
	inserts := strings.Split("+"+strings.Join(flags, ",+"), ",")
	ofHost := make([]string, len(flags))
	for i, text := range flags {
		ofHost[i] = strings.Replace(text, ":", ":@", 1)
	}
	user := Grammar{&Pair{UID: m}}
	for _, c := range []struct {
		name string
		run  func() error
	}{
		{"List", func() error { _, err := ParseList(flags); return err }},
		{"Flags", func() error { _, err := Grammar{}.parse(UID, flags); return err }},
		{"Inserts", func() error { _, err := Grammar{}.parse(UID, inserts); return err }},
		{"OfHost", func() error { _, err := user.parse(UID, ofHost); return err }},
		{"Kernel", func() error { _, err := ParseKernel(text); return err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAlgebra340(b *testing.B) {
	m := largest(b)
	inverse, extra := m.Invert(), mapOf(b, "100:100:50,700:900:3")
	lines := Extents(m.Invert().spans)
	for _, c := range []struct {
		name string
		run  func() error
	}{
		{"New", func() error { _, err := New(m.spans...); return err }},
		{"Invert", func() error { m.Invert(); return nil }},
		{"Compose", func() error { _, err := m.Compose(inverse); return err }},
		{"With", func() error { _, err := m.With(extra); return err }},
		{"SplitAt", func() error { _, err := m.SplitAt(lines); return err }},
		{"Overlaps", func() error { m.Overlaps(mapOf(b, "0:4000:1")); return nil }},
		{"Print", func() error { _ = m.String(); return nil }},
		{"ToHost340", func() error {
			for id := range Inside(MaxExtents) {
				m.ToHost(id)
			}
			return nil
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
