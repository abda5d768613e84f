package idpool

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

func pairOf(t *testing.T, uid, gid string) idmap.Pair {
	t.Helper()
	u, err := idmap.ParseList([]string{uid})
	if err != nil {
		t.Fatal(err)
	}
	g, err := idmap.ParseList([]string{gid})
	if err != nil {
		t.Fatal(err)
	}
	return idmap.Pair{UID: u, GID: g}
}

func TestExplicitMaps(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 4)
	p, other := open(t, cfg), open(t, another(t, cfg))
	mine, theirs := lease(t, p, "c", 0), lease(t, other, "d", 0)
	for _, c := range []struct {
		name, uid, gid, want string
		class                fault.Class
	}{
		{"story 5", "0:100000:70000", "0:200000:70000", "", 0},
		{"story 1", "0:1000:1", "0:1000:1", "", 0},
		{"root by name", "0:0:1,1:100001:65535", "0:0:1", "", 0},
		{"root among others", "0:0:65536", "0:1000:1", "cannot use uid map entry 0:0:65536: it maps host id 0, root, among others", fault.Denied},
		{"root's group among others", "0:1000:1", "5:0:2", "cannot use gid map entry 5:0:2: it maps host id 0, root, among others", fault.Denied},
		{"leased", "0:1000:1", fmt.Sprintf("0:1000:1,1:%d:1", mine.Base+65535),
			fmt.Sprintf("cannot use gid map entry 1:%d:1: host ids %d…%d are leased to c", mine.Base+65535, mine.Base, mine.Base+65535), fault.Conflict},
		{"another daemon's", fmt.Sprintf("0:%d:1", theirs.Base), "0:1:1",
			fmt.Sprintf("cannot use id map: host ids of %d…%d belong to the fief daemon of %s", theirs.Base/slabIDs*slabIDs, theirs.Base/slabIDs*slabIDs+slabIDs-1, other.cfg.DataRoot), fault.Conflict},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, check := range []func(idmap.Pair) error{p.CheckExplicit, func(pair idmap.Pair) error {
				defer p.Release("e")
				return p.Hold("e", pair)
			}} {
				err := check(pairOf(t, c.uid, c.gid))
				if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want || !fault.Is(err, c.class)) {
					t.Errorf("%v\nwant %s", err, c.want)
				}
			}
		})
	}
}

func TestExplicitMapsOnVanishedRoots(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 2)
	gone := another(t, cfg)
	theirs := lease(t, open(t, gone), "d", 0)
	p := open(t, cfg)
	pair := pairOf(t, fmt.Sprintf("0:%d:65536", theirs.Base), "0:1000:1")
	if err := p.CheckExplicit(pair); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(gone.DataRoot, idFile)); err != nil {
		t.Fatal(err)
	}
	if err := p.CheckExplicit(pair); err != nil {
		t.Error(err)
	}
	if err := p.Hold("e", pair); err != nil {
		t.Error(err)
	}
}

func TestHeldMapsAreNotLeased(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 2)
	p := open(t, cfg)
	free := uint64(cfg.First)
	pair := pairOf(t, fmt.Sprintf("0:%d:10", free+3*rangeIDs+5), fmt.Sprintf("0:%d:10", free+67*rangeIDs))
	for _, owner := range []string{"one", "two"} { // explicit maps may share
		if err := p.Hold(owner, pair); err != nil {
			t.Fatal(err)
		}
	}
	p.Rename("two", "three")
	p.Release("two")
	p.Release("one")
	other := open(t, another(t, cfg))
	if l, err := other.Lease("d", 0); !fault.Is(err, fault.Exhausted) {
		t.Errorf("%+v: the slabs below held maps were left to others: %v", l, err)
	}
	got := map[uint64]bool{}
	for i := 0; ; i++ {
		l, err := p.Lease(fmt.Sprint("c", i), 0)
		if err != nil {
			break
		}
		got[(uint64(l.Base)-free)/rangeIDs] = true
	}
	if len(got) != 126 || got[3] || got[67] {
		t.Errorf("%d leases, held ranges among them: %v %v", len(got), got[3], got[67])
	}
	p.Release("three")
	lease(t, p, "x", 0)
	lease(t, p, "y", 0)
}

func TestHoldOverTheOwnersLease(t *testing.T) {
	p := open(t, newHost(t))
	l := lease(t, p, "c", 0)
	pair := pairOf(t, fmt.Sprintf("0:%d:1000", l.Base), fmt.Sprintf("0:%d:1000", l.Base))
	if err := p.Hold("c", pair); err != nil {
		t.Error(err)
	}
	if err := p.Hold("d", pair); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
}

func TestHoldOfTooMuch(t *testing.T) {
	p := open(t, newHost(t))
	err := p.Hold("c", pairOf(t, "0:1:1000000000", "0:1:1"))
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "4194304") {
		t.Error(err)
	}
	if got := len(p.slabs); got != 1 {
		t.Errorf("%d slabs were claimed", got)
	}
}
