package engine

import (
	"context"
	"strings"
	"testing"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

func TestAskedWay(t *testing.T) {
	r := newRooms()
	r.images["busybox"] = busybox
	e := r.engine(t)
	rec := made(t, e, named("box", func(a *ask.Container) { a.Shift = "metacopy" }))
	if rec.Rootfs.Way != "metacopy" || rec.Rootfs.Asked != "metacopy" || rec.Rootfs.Why != askedFor {
		t.Errorf("%+v", rec.Rootfs)
	}
	_, err := e.Update(context.Background(), "box", ask.UsernsMap{Pair: pairFrom(t, 0)}, nil)
	if !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "metacopy") {
		t.Errorf("another map: %v", err)
	}
	if _, err := e.Create(context.Background(), wanted(func(a *ask.Container) { a.Shift = "attached" })); !fault.Is(err, fault.Unsupported) {
		t.Errorf("a way that cannot be had: %v", err)
	}
}

// TestWayOf: the store of the test is idmapped.
func TestWayOf(t *testing.T) {
	e := newRooms().engine(t)
	pair := pairFrom(t, 1<<20)
	for _, c := range []struct {
		way, asked string
		pair       idmap.Pair
		want       string
	}{
		{"", "", pair, ""}, {"idmapped", "", pair, ""}, {"attached", "", pair, ""}, {"plain", "", pair, ""},
		{"copy", "", pair, "copy"}, {"reflink", "", pair, "reflink"},
		{"metacopy", "metacopy", pair, "metacopy"}, {"attached", "attached", pair, "attached"},
		{"plain", "copy", idmap.Pair{}, ""},
	} {
		rec := record.Container{Rootfs: record.Rootfs{Way: c.way, Asked: c.asked}}
		if got, why := e.wayOf(rec, c.pair); got != c.want || (why == "") != (got == "") {
			t.Errorf("way %q, asked %q: %q because %q", c.way, c.asked, got, why)
		}
	}
}
