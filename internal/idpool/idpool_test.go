package idpool

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

func TestLeasesAreAlignedAndDistinct(t *testing.T) {
	p := open(t, newHost(t))
	seen := map[idmap.Host]string{}
	for i := range 300 {
		owner := fmt.Sprint("c", i)
		l := lease(t, p, owner, 0)
		if l.Size != 65536 || l.Base%65536 != 0 || l.Base < defaultFirst || l.Base > defaultLast {
			t.Fatalf("%+v", l)
		}
		if other, twice := seen[l.Base]; twice {
			t.Fatalf("%s and %s both have %d", owner, other, l.Base)
		}
		seen[l.Base] = owner
	}
	if got := p.Info(); got.Granted != 300 || got.Granted+got.Free != 28664 || got.First != defaultFirst || got.Last != defaultLast {
		t.Errorf("%+v", got)
	}
}

func TestLeaseIsRepeatable(t *testing.T) {
	p := open(t, newHost(t))
	first := lease(t, p, "c", 1000)
	if first.Size != 1000 {
		t.Errorf("%+v, want the size asked for", first)
	}
	if again := lease(t, p, "c", 1000); again != first {
		t.Errorf("%+v, then %+v", first, again)
	}
	if _, err := p.Lease("c", 2000); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
}

func TestFirstChoiceFollowsFromTheOwner(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	want := lease(t, open(t, cfg), "some container", 0)
	got := lease(t, open(t, cfg), "some container", 0)
	if got != want {
		t.Errorf("%+v, in another process %+v", want, got)
	}
}

func TestLargeLeases(t *testing.T) {
	p := open(t, newHost(t).slabsFrom(10, 40))
	var all []record.Lease
	for i, size := range []uint32{70000, 1 << 22, 1<<22 + 1, 200000, 3 << 22, 1} {
		l := lease(t, p, fmt.Sprint("c", i), size)
		if l.Size != size || l.Base%65536 != 0 {
			t.Fatalf("%+v", l)
		}
		for _, o := range all {
			if overlap(l, o) {
				t.Fatalf("%+v overlaps %+v", l, o)
			}
		}
		all = append(all, l)
	}
	if _, err := p.Lease("too much", 41<<22); !fault.Is(err, fault.Exhausted) {
		t.Error(err)
	}
	if _, err := p.Lease("far too much", 1<<32-1); !fault.Is(err, fault.Exhausted) {
		t.Error(err)
	}
}

func TestExhaustionIsAnErrorAtOnce(t *testing.T) {
	p := open(t, newHost(t).slabsFrom(10, 1))
	for i := range 64 {
		lease(t, p, fmt.Sprint("c", i), 0)
	}
	_, err := p.Lease("one more", 0)
	const want = "cannot lease host ids: no 65536 neighbouring ids of 41943040…46137343 are free"
	if !fault.Is(err, fault.Exhausted) || err.Error() != want || fault.HintOf(err) == "" {
		t.Fatal(err)
	}
	if got := p.Info(); got.Granted != 64 || got.Free != 0 {
		t.Errorf("%+v", got)
	}
	p.Release("c7")
	if got := p.Info(); got.Granted != 63 || got.Free+got.Quarantined != 1 {
		t.Errorf("%+v", got)
	}
	leaseSoon(t, p, "one more", 0)
}

func TestReleasedRangesWaitForTheirProcesses(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	p := open(t, cfg)
	var last record.Lease
	for i := range 64 {
		last = lease(t, p, fmt.Sprint("c", i), 0)
	}
	process(t, cfg, 4711, fmt.Sprintf("0 %d 65536\n", last.Base), "0 0 4294967295\n")
	p.Release("c63")
	if l, err := p.Lease("next", 0); !fault.Is(err, fault.Exhausted) {
		t.Fatalf("leased %+v, which a process is in: %v", l, err)
	}
	if err := os.RemoveAll(filepath.Join(cfg.Proc, "4711")); err != nil {
		t.Fatal(err)
	}
	if got := leaseSoon(t, p, "next", 0); got != last {
		t.Errorf("%+v, want %+v", got, last)
	}
}

func TestIDsOfOthersAreSkipped(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 2)
	first := uint64(cfg.First)
	at := func(n uint64) uint64 { return first + n*rangeIDs }
	write(t, cfg.SubUID, fmt.Sprintf("# comment\nann:%d:65536\nbob:%d:1\nbroken:x:y\n", at(0), at(2)+17))
	write(t, cfg.SubGID, fmt.Sprintf("ann:%d:%d\n", at(5)-1, 2)) // the end of one, the beginning of another
	write(t, cfg.Passwd, fmt.Sprintf("ldap:x:%d:0::/:/bin/sh\n", at(7)+65535))
	write(t, cfg.Group, fmt.Sprintf("team:x:%d:ldap", at(8)))
	process(t, cfg, 100, fmt.Sprintf("0 %d 10\n5 4294967295 1\n", at(9)), fmt.Sprintf("0 %d 10\n", at(10)))
	process(t, cfg, 101, "0 0 4294967295\n", "0 0 4294967295\n") // maps ids to themselves
	p := open(t, cfg)
	got := map[uint64]bool{}
	for i := 0; ; i++ {
		l, err := p.Lease(fmt.Sprint("c", i), 0)
		if err != nil {
			break
		}
		got[(uint64(l.Base)-first)/rangeIDs] = true
	}
	for n := range uint64(128) {
		_, blocked := map[uint64]bool{0: true, 2: true, 4: true, 5: true, 7: true, 8: true, 9: true, 10: true}[n]
		if got[n] == blocked {
			t.Errorf("range %d: leased %v, others have it %v", n, got[n], blocked)
		}
	}
}

func TestChangedFilesAreFollowed(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	p := open(t, cfg)
	lease(t, p, "before", 0)
	write(t, cfg.SubUID, fmt.Sprintf("ann:%d:%d\n", cfg.First, slabIDs))
	if l, err := p.Lease("after", 0); !fault.Is(err, fault.Exhausted) {
		t.Fatalf("%+v, %v", l, err)
	}
	if got := p.Info(); got.Granted != 1 || got.Free != 0 {
		t.Errorf("%+v", got)
	}
	if err := os.Remove(cfg.SubUID); err != nil {
		t.Fatal(err)
	}
	lease(t, p, "after", 0)
}

func TestUnreadableFilesStopLeases(t *testing.T) {
	cfg := newHost(t)
	p := open(t, cfg)
	if err := syscall.Mkfifo(cfg.SubUID, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Lease("c", 0); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

func TestSlabOfAnIncusHostIsSkipped(t *testing.T) {
	cfg := newHost(t)
	write(t, cfg.SubUID, "root:1000000:1000000000\n")
	p := open(t, cfg)
	for i := range 100 {
		if l := lease(t, p, fmt.Sprint("c", i), 0); l.Base < 1001000000 && l.Base+65535 >= 1000000 {
			t.Fatalf("%+v is root's", l)
		}
	}
}

func TestPoolUsersLinesAreThePool(t *testing.T) {
	cfg := newHost(t)
	write(t, cfg.SubUID, "fief:100000:262144\nfief:10000000:65536\n")
	write(t, cfg.SubGID, "fief:131072:1000000\n")
	p := open(t, cfg)
	got := map[idmap.Host]bool{}
	for i := range 3 {
		got[lease(t, p, fmt.Sprint("c", i), 0).Base] = true
	}
	if !got[131072] || !got[196608] || !got[262144] {
		t.Errorf("%v", got)
	}
	if _, err := p.Lease("more", 0); !fault.Is(err, fault.Exhausted) {
		t.Error(err)
	}
	write(t, cfg.SubGID, "fief:900000:100\n")
	if _, err := p.Lease("none", 0); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), `user "fief"`) {
		t.Error(err)
	}
}

func TestRename(t *testing.T) {
	p := open(t, newHost(t))
	pooled := lease(t, p, "pool-1", 0)
	p.Rename("pool-1", "container")
	if got := lease(t, p, "container", 0); got != pooled {
		t.Errorf("%+v, want %+v", got, pooled)
	}
	other := lease(t, p, "pool-2", 0)
	p.Rename("pool-2", "container") // taken: nothing happens
	p.Rename("nobody", "nothing")
	if got := lease(t, p, "container", 0); got != pooled {
		t.Errorf("%+v, want %+v", got, pooled)
	}
	if got := lease(t, p, "pool-2", 0); got != other {
		t.Errorf("%+v, want %+v", got, other)
	}
	if got := p.Info().Granted; got != 2 {
		t.Error(got)
	}
}

// TestManyGoroutines: eight, which keep 40 ranges each, 320 taken together, when
// none ends before the others do.
func TestManyGoroutines(t *testing.T) {
	p := open(t, newHost(t).slabsFrom(10, 6))
	var mu sync.Mutex
	owners := map[idmap.Host]string{}
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 200 {
				owner := fmt.Sprint(g, "-", i)
				l, err := soon(p, owner, 0)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other := owners[l.Base]; other != "" {
					t.Errorf("%s and %s have %d", owner, other, l.Base)
				}
				owners[l.Base] = owner
				mu.Unlock()
				if i%5 == 0 {
					continue
				}
				mu.Lock()
				delete(owners, l.Base)
				mu.Unlock()
				p.Release(owner)
				if i%50 == 25 {
					p.Release(fmt.Sprint(g, "-", i/5*5)) // a second release does nothing
				}
			}
			for i := 0; i < 200; i += 5 {
				owner := fmt.Sprint(g, "-", i)
				if l, err := p.Lease(owner, 0); err == nil {
					mu.Lock()
					if owners[l.Base] == owner {
						delete(owners, l.Base)
					}
					mu.Unlock()
				}
				p.Release(owner)
			}
		})
	}
	group.Wait()
}

// TestRealProcessInANamespace leases around a process that this test starts
// with a map in the pool, by the real /proc.
func TestRealProcessInANamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: the map of another user's ids needs CAP_SETUID")
	}
	cfg := newHost(t).slabsFrom(500, 1)
	cfg.Proc = "/proc"
	used := int(cfg.First) + 3*rangeIDs
	cmd := exec.Command("sleep", "60")
	one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: used + 40000, Size: 100}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Skip("kernel: no user namespaces: ", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	p := open(t, cfg)
	for i := range 63 {
		if l := lease(t, p, fmt.Sprint("c", i), 0); int(l.Base) == used {
			t.Fatal("leased the ids of a running process")
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if l := leaseSoon(t, p, "last", 0); int(l.Base) != used {
		t.Errorf("%+v, want %d", l, used)
	}
}

// BenchmarkLease is one lease and its release on a pool with a thousand others.
func BenchmarkLease(b *testing.B) {
	p := open(b, newHost(b))
	for i := range 1000 {
		lease(b, p, fmt.Sprint("c", i), 0)
	}
	for b.Loop() {
		if _, err := p.Lease("one", 0); err != nil {
			b.Fatal(err)
		}
		p.Release("one")
	}
}

// BenchmarkFollow is the part of a lease that looks for changed files.
func BenchmarkFollow(b *testing.B) {
	p := open(b, newHost(b))
	for b.Loop() {
		if err := p.follow(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLeaseIsCheap(t *testing.T) {
	p := open(t, newHost(t))
	best := time.Hour
	for i := range 40 {
		start := time.Now()
		lease(t, p, strconv.Itoa(i), 0)
		best = min(best, time.Since(start))
	}
	if best > 50*time.Microsecond {
		t.Errorf("the quickest of 40 leases took %v, the budget is 50 µs", best)
	}
}
