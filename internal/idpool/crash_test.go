package idpool

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fief/internal/idpool/hostids"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// TestKilledAtEveryStep ends a daemon at each step of a claim. The next one on
// the same data root works, and every claim is whole.
func TestKilledAtEveryStep(t *testing.T) {
	for _, step := range allSteps {
		t.Run(strings.ReplaceAll(step, " ", "-"), func(t *testing.T) {
			s := &soak{t: t, host: newHost(t).slabsFrom(20, 7)}
			path := filepath.Join(t.TempDir(), "board")
			s.board = newBoard(t, path)
			cfg := another(t, s.host)
			switch step { // what makes a daemon pass it
			case "claim dropped":
				open(t, cfg).Close()
				if err := os.Remove(filepath.Join(cfg.DataRoot, idFile)); err != nil {
					t.Fatal(err)
				}
			case "replaced":
				narrow := cfg
				narrow.Last = narrow.First
				open(t, narrow).Close()
			}
			d := &daemon{order: order{Config: cfg, Board: path, Litter: t.TempDir(), KillAt: step}}
			s.start(d)
			<-d.said // it has killed itself
			_ = d.cmd.Wait()
			all, err := claims{dir: cfg.ClaimDir}.list()
			for number, c := range all {
				if err != nil || c.root != cfg.DataRoot {
					t.Errorf("%v, slab %d: %+v", err, number, c)
				}
			}
			mine := lease(t, open(t, cfg), "c", 0)
			for _, p := range []*Pool{open(t, another(t, s.host)), open(t, another(t, s.host))} {
				if theirs := lease(t, p, "c", 0); overlap(mine, theirs) {
					t.Errorf("%+v and %+v", mine, theirs)
				}
			}
		})
	}
}

// TestFullDisk: a claim for which the disk has no room is an error that says
// so; nothing of it is left, and it can be made later.
func TestFullDisk(t *testing.T) {
	dir := mnttest.SmallFS(t, "64k")
	cfg := newHost(t).slabsFrom(10, 2)
	cfg.ClaimDir = filepath.Join(dir, "claims")
	p := open(t, cfg)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	held := lease(t, p, "c", slabIDs)
	if _, err := p.Lease("d", slabIDs); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "no space left on device") {
		t.Fatal(err)
	}
	if _, err := Open(another(t, cfg), nil); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	if entries, err := os.ReadDir(cfg.ClaimDir); err != nil || len(entries) != 2 { // the lock, a claim
		t.Error(entries, err)
	}
	p.Release("e")
	p.Close()
	p = open(t, cfg, Held{"c", held}) // on a full disk, too
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if got := lease(t, p, "d", slabIDs); overlap(got, held) {
		t.Errorf("%+v", got)
	}
}

// TestHostClaimsAreHolders: what the host's files say is in the list, too.
func TestHostClaimsAreHolders(t *testing.T) {
	c := census{host: []hostids.Claim{{From: 0, To: 1, UID: true, Kind: record.IDUser, Holder: "root"}}}
	c.addHost()
	if len(c.out) != 1 || c.out[0].First != 0 || c.out[0].Last != 0 || c.out[0].Holder != "root" {
		t.Errorf("%+v", c.out)
	}
}
