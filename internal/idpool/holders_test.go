package idpool

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fief/internal/idpool/hostids"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// table prints claims, one a line, as base+count in ranges of the pool from
// first on.
func table(t *testing.T, all []record.IDRange, first idmap.Host) string {
	t.Helper()
	var b strings.Builder
	for i, r := range all {
		if i > 0 && all[i-1].First > r.First {
			t.Error("not in order")
		}
		if r.First < rangeIDs {
			continue // users
		}
		what := "both"
		if !r.UID || !r.GID {
			what = map[bool]string{true: "uid", false: "gid"}[r.UID]
		}
		fmt.Fprintf(&b, "%v+%v %s %s %s", (float64(r.First)-float64(first))/rangeIDs, (float64(r.Last)-float64(r.First)+1)/rangeIDs, what, r.Kind, r.Holder)
		for _, s := range []string{r.Source, r.Why} {
			if s != "" {
				b.WriteString(" " + s)
			}
		}
		if len(r.Overlaps) > 0 {
			fmt.Fprintf(&b, " %v", r.Overlaps)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestHolders(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 3)
	at := func(n int) idmap.Host { return cfg.First + idmap.Host(n*rangeIDs) }
	one := func(n int) record.Lease { return record.Lease{Base: at(n), Size: rangeIDs} }
	process(t, cfg, 5, fmt.Sprintf("0 %d 65536\n", at(20)), "")
	write(t, filepath.Join(cfg.Proc, "5", "comm"), "nginx\n")
	other := another(t, cfg)
	q := open(t, other, Held{"theirs", one(64)})
	p := open(t, cfg, Held{"c", one(0)}, Held{"berth-1", one(1)}, Held{"gone", one(2)}, Held{"left", one(3)}, Held{"pod", one(5)}, Held{"lost", one(64)})
	p.Release("gone")
	p.Release("left", "/a", "/b")
	pair := pairOf(t, fmt.Sprintf("0:%d:65536", at(5)), fmt.Sprintf("0:%d:131072", at(5)))
	if err := p.Share("joins", pair); err != nil {
		t.Fatal(err)
	}
	got, err := p.Holders()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`0+1 both lease c
1+1 both ready berth-1
2+1 both quarantine  processes are looked for
3+1 both quarantine left files may be left below /a, /b
4+1 both free 
5+1 both lease pod
5+1 both map joins
6+1 gid map joins
7+13 both free 
20+1 both quarantine  in use by nginx (pid 5)
21+43 both free 
64+64 both daemon fief %s [lost]
64+1 both lease lost [fief]
128+64 both free 
`, q.cfg.DataRoot)
	if text := table(t, got, cfg.First); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if i := slices.IndexFunc(got, func(r record.IDRange) bool { return r.Holder == "left" }); time.Since(got[i].Since) > time.Minute {
		t.Errorf("%+v", got[i])
	}
}

// TestCensus is of what the host says, without a host.
func TestCensus(t *testing.T) {
	user := hostids.Claim{From: 1000, To: 1001, UID: true, Kind: record.IDUser, Holder: "ann", Source: "passwd"}
	c := census{
		leases: map[string]record.Lease{"c": {Base: 1 << 20, Size: 65536}, "d": {Base: 1<<20 + 65536, Size: 65536}},
		slabs:  []slab{{number: 0, told: 1 << 20, resting: 1 << 20}},
		host: []hostids.Claim{user,
			{From: 1<<20 - 5, To: 1<<20 + 5, UID: true, Kind: record.IDSub, Holder: "bob", Source: "subuid:7"},
			{From: 1 << 20, To: 1<<20 + 65536, UID: true, GID: true, Kind: record.IDSub, Holder: "fief", Source: "subuid:1"},
			{From: 1<<20 + 65530, To: 1<<20 + 65540, GID: true, Kind: record.IDEngine, Holder: "podman", Source: "/var/lib/containers"},
		},
		processes: []hostids.Claim{
			{From: 1000, To: 1001, UID: true, Kind: record.IDProcess, Holder: "bash", Source: "process 7"},
			{From: 1 << 20, To: 1<<20 + 65536, UID: true, Kind: record.IDProcess, Holder: "nginx", Source: "process 8"},
			{From: 20 << 16, To: 20<<16 + 1, UID: true, Kind: record.IDProcess, Holder: "late", Source: "process 9"},
			{From: 1<<20 + 131000, To: 1<<20 + 131080, UID: true, GID: true, Kind: record.IDProcess, Holder: "runc", Source: "process 10"},
			{From: 1<<20 + 131000, To: 1<<20 + 131080, UID: true, GID: true, Kind: record.IDProcess, Holder: "runc", Source: "process 11"},
		},
		fresh: map[int]uint64{1: 3},
	}
	c.addOwn()
	c.addHost()
	c.addProcesses()
	c.addFree()
	slices.SortFunc(c.out, byFirst)
	contest(c.out)
	var got []string
	for _, r := range c.out {
		got = append(got, fmt.Sprint(r.Kind, " ", r.Holder, " ", r.Source, r.Why, r.Overlaps))
	}
	want := []string{
		"user ann passwd[]", "subid bob subuid:7[c]", "lease c [bob podman]", "subid fief subuid:1[]",
		"engine podman /var/lib/containers[c d]", "lease d [podman runc]",
		"process runc process 10[d]", "quarantine  in use by late (process 9)[]", "free  []",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestExtentsWithoutAndCover(t *testing.T) {
	l := extents{{10, 20}, {30, 40}, {50, 60}}
	if got := l.without(extents{{0, 12}, {15, 16}, {18, 35}, {50, 60}}); !slices.Equal(got, extents{{12, 15}, {16, 18}, {35, 40}}) {
		t.Error(got)
	}
	for e, want := range map[extent]bool{{10, 20}: true, {11, 19}: true, {10, 21}: false, {25, 26}: false, {9, 11}: false, {59, 60}: true, {60, 61}: false} {
		if l.cover(e) != want {
			t.Error(e)
		}
	}
}

func BenchmarkHolders10000(b *testing.B) {
	p := open(b, newHost(b))
	for i := range 10000 {
		lease(b, p, fmt.Sprint("container-", i), 0)
	}
	for b.Loop() {
		all, err := p.Holders()
		if err != nil || len(all) < 10000 {
			b.Fatal(len(all), err)
		}
	}
}

// BenchmarkCensus10000 adds what a host with many users says.
func BenchmarkCensus10000(b *testing.B) {
	base := census{leases: map[string]record.Lease{}}
	for i := range 10000 {
		base.leases[fmt.Sprint("container-", i)] = record.Lease{Base: idmap.Host(524288 + i*rangeIDs), Size: rangeIDs}
		base.host = append(base.host,
			hostids.Claim{From: uint64(i), To: uint64(i) + 1, UID: true, Kind: record.IDUser, Holder: "user"},
			hostids.Claim{From: uint64(i) << 16, To: uint64(i+1) << 16, UID: true, Kind: record.IDSub, Holder: "user"})
		base.processes = append(base.processes, hostids.Claim{From: uint64(524288 + i*rangeIDs), To: uint64(524288 + i*rangeIDs + 1), UID: true, Kind: record.IDProcess})
	}
	for b.Loop() {
		c := base
		c.addOwn()
		c.addHost()
		c.addProcesses()
		c.addFree()
		slices.SortFunc(c.out, byFirst)
		contest(c.out)
	}
}
