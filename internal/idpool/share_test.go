package idpool

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

func TestLeasesComeBackAfterARestart(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 4)
	p := open(t, cfg)
	var held []Held
	for i := range 100 {
		owner := fmt.Sprint("c", i)
		held = append(held, Held{owner, lease(t, p, owner, 0)})
	}
	p.Close()
	p = open(t, cfg, held...)
	if got := p.Info().Granted; got != 100 || len(p.Lost()) != 0 {
		t.Fatalf("%d, lost %v", got, p.Lost())
	}
	for i := range 100 {
		l := lease(t, p, fmt.Sprint("new", i), 0)
		for _, h := range held {
			if overlap(l, h.Lease) {
				t.Fatalf("%+v is %s's", l, h.Owner)
			}
		}
	}
}

func TestDaemonsDoNotShareSlabs(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 3)
	one, two := open(t, cfg), open(t, another(t, cfg))
	var all []record.Lease
	for _, p := range []*Pool{one, two} {
		for i := 0; i < 64 || p == two; i++ {
			l, err := p.Lease(fmt.Sprint("c", i), 0)
			if err != nil {
				break
			}
			for _, o := range all {
				if overlap(l, o) {
					t.Fatalf("%+v overlaps %+v", l, o)
				}
			}
			all = append(all, l)
		}
		p.Close()
	}
	if len(all) < 128 {
		t.Errorf("%d leases", len(all))
	}
}

func TestSlabsOfVanishedRootsAreTakenLast(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 2)
	gone := another(t, cfg)
	held := lease(t, open(t, gone), "c", 0)
	p := open(t, cfg)
	if overlap(lease(t, p, "first", 4<<20), held) {
		t.Fatal("the slab of a data root that exists was taken")
	}
	if _, err := p.Lease("second", 0); !fault.Is(err, fault.Exhausted) {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(gone.DataRoot, idFile)); err != nil {
		t.Fatal(err)
	}
	leaseSoon(t, p, "second", 0)
}

func TestMovedRootKeepsItsLeasesACopyDoesNot(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 2)
	first := open(t, cfg)
	held := Held{"c", lease(t, first, "c", 0)}
	first.Close()

	moved := cfg
	moved.DataRoot += "-moved"
	if err := os.Rename(cfg.DataRoot, moved.DataRoot); err != nil {
		t.Fatal(err)
	}
	p := open(t, moved, held)
	if len(p.Lost()) != 0 || lease(t, p, "c", 0) != held.Lease {
		t.Fatalf("lost %v", p.Lost())
	}

	copied := another(t, cfg)
	id, err := os.ReadFile(filepath.Join(moved.DataRoot, idFile))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(copied.DataRoot, idFile), string(id))
	p = open(t, copied, held)
	if lost := p.Lost(); len(lost) != 1 || lost[0] != held {
		t.Fatalf("lost %v", lost)
	}
	if overlap(lease(t, p, "c", 0), held.Lease) {
		t.Error("the copy leases what the original has leased")
	}
}

func TestRootMadeAnewForgetsItsClaims(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	for range 3 {
		p := open(t, cfg)
		lease(t, p, "c", 0)
		p.Close()
		if err := os.Remove(filepath.Join(cfg.DataRoot, idFile)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadHeldLeasesAreLost(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	base := cfg.First
	held := []Held{
		{"good", record.Lease{Base: base, Size: 65536}},
		{"good", record.Lease{Base: base + 65536, Size: 65536}},
		{"overlaps", record.Lease{Base: base + 5, Size: 10}},
		{"empty", record.Lease{Base: base + 131072}},
		{"wraps", record.Lease{Base: 1<<32 - 65536, Size: 1<<32 - 1}},
	}
	p := open(t, cfg, held...)
	if got := p.Lost(); len(got) != 4 || p.Info().Granted != 1 {
		t.Errorf("%v", got)
	}
}

func TestRemovedClaimsAreMadeAgain(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 2)
	p := open(t, cfg)
	number := p.slabs[0].number
	path := p.claims.path(number)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	lease(t, p, "whole", 64*65536) // fills the first slab
	lease(t, p, "more", 64*65536)  // claims the second
	if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), p.ID()) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestWrongConfigurations(t *testing.T) {
	good := newHost(t)
	for _, c := range []struct {
		class fault.Class
		edit  func(*Config)
	}{
		{fault.NotFound, func(c *Config) { c.DataRoot += "/missing" }},
		{fault.Invalid, func(c *Config) { c.First, c.Last = 65536, 0 }},
		{fault.Invalid, func(c *Config) { c.First, c.Last = 0, 65536 }},
		{fault.Invalid, func(c *Config) { c.First, c.Last = 65537, 655360 }},
		{fault.Invalid, func(c *Config) { c.First, c.Last = 65536, 1<<31 }},
		{fault.Unavailable, func(c *Config) { c.ClaimDir = c.Passwd }},
		{fault.Unavailable, func(c *Config) { c.Proc += "/missing" }},
		{fault.Unavailable, func(c *Config) { c.Passwd = c.DataRoot }},
	} {
		cfg := good
		c.edit(&cfg)
		if p, err := Open(cfg, nil); !fault.Is(err, c.class) {
			t.Errorf("%+v: %v", cfg, err)
			if p != nil {
				p.Close()
			}
		}
	}
	write(t, filepath.Join(good.DataRoot, idFile), "not an id")
	if _, err := Open(good, nil); !fault.Is(err, fault.Corrupt) {
		t.Error(err)
	}
}

func TestSlabClaimedByAnotherSinceIsGivenUp(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 2)
	p := open(t, cfg)
	number := p.slabs[0].number
	if err := os.Remove(p.claims.path(number)); err != nil {
		t.Fatal(err)
	}
	other := open(t, another(t, cfg))
	lease(t, other, "fills one", 64*65536)
	lease(t, other, "fills the other", 64*65536)
	for i := range 65 { // the last one looks for more, and finds that its claim is another's
		_, _ = p.Lease(fmt.Sprint("c", i), 0)
	}
	for i := range 65 {
		p.Release(fmt.Sprint("c", i))
	}
	if l, err := p.Lease("after", 0); !fault.Is(err, fault.Exhausted) {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestClaimsNobodyUnderstandsAreLeftAlone(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	if err := os.Mkdir(cfg.ClaimDir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := claims{dir: cfg.ClaimDir}.path(10)
	write(t, path, "fief-ids 2\nsomething newer\n")
	p := open(t, cfg)
	if l, err := p.Lease("c", 0); !fault.Is(err, fault.Exhausted) {
		t.Errorf("%+v, %v", l, err)
	}
	if err := p.CheckExplicit(pairOf(t, "0:41943040:1", "0:1000:1")); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "unknown data root") {
		t.Error(err)
	}
	if got := read(t, path); got != "fief-ids 2\nsomething newer\n" {
		t.Error(got)
	}
}

// TestNoRoomForAClaim cannot write the claim: an error, and nothing is
// left behind.
func TestNoRoomForAClaim(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	if err := os.MkdirAll(filepath.Join(cfg.ClaimDir, ".new", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg, nil); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	if all, err := (claims{dir: cfg.ClaimDir}).list(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// TestWiderPoolIsClaimedFirst: what a changed file of the host adds to a slab is
// leased once the claim of the slab says so.
func TestWiderPoolIsClaimedFirst(t *testing.T) {
	cfg := newHost(t)
	base := 10 * slabIDs
	write(t, cfg.SubUID, fmt.Sprintf("fief:%d:%d\n", base, rangeIDs))
	write(t, cfg.SubGID, fmt.Sprintf("fief:%d:%d\n", base, 3*rangeIDs))
	p := open(t, cfg)
	path := p.claims.path(10)
	says := func() string { return read(t, path)[strings.Index(read(t, path), "ranges"):] }
	lease(t, p, "a", 0)
	if got := says(); got != "ranges 0000000000000001\n" {
		t.Fatal(got)
	}
	write(t, cfg.SubUID, fmt.Sprintf("fief:%d:%d\n", base, 3*rangeIDs))
	leaseSoon(t, p, "b", 0)
	lease(t, p, "c", 0)
	if got := says(); got != "ranges 0000000000000007\n" {
		t.Error(got)
	}
	write(t, cfg.SubUID, fmt.Sprintf("fief:%d:%d\n", base, 2*rangeIDs)) // what is leased stays claimed
	p.Close()
	p = open(t, cfg, Held{"a", record.Lease{Base: idmap.Host(base), Size: 1}}, Held{"c", record.Lease{Base: idmap.Host(base + 2*rangeIDs), Size: 1}})
	if got := says(); got != "ranges 0000000000000007\n" || len(p.Lost()) != 0 {
		t.Error(got, p.Lost())
	}
	p.Close()
	open(t, cfg, Held{"a", record.Lease{Base: idmap.Host(base), Size: 1}})
	if got := says(); got != "ranges 0000000000000003\n" {
		t.Error(got)
	}
}
