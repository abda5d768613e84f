package idpool

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"fief/internal/idpool/hostids"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		work()
		return
	}
	goleak.VerifyTestMain(m)
}

// newHost makes a host of its own in a temporary directory: account files, an
// empty process list, a directory of claims, one data root.
func newHost(t testing.TB) Config {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{
		DataRoot: filepath.Join(dir, "root"), ClaimDir: filepath.Join(dir, "claims"), Proc: filepath.Join(dir, "proc"),
		SubUID: filepath.Join(dir, "subuid"), SubGID: filepath.Join(dir, "subgid"),
		Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group"),
		NSSwitch: filepath.Join(dir, "nsswitch.conf"), Root: filepath.Join(dir, "host"),
	}
	for _, d := range []string{cfg.DataRoot, cfg.Proc} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, cfg.Passwd, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n")
	write(t, cfg.Group, "root:x:0:\nnogroup:x:65534:\n")
	return cfg
}

// another is the configuration of a second daemon on the same host.
func another(t testing.TB, cfg Config) Config {
	t.Helper()
	cfg.DataRoot = t.TempDir()
	return cfg
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, cfg Config, held ...Held) *Pool {
	t.Helper()
	p, err := Open(cfg, held)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func lease(t testing.TB, p *Pool, owner string, size uint32) record.Lease {
	t.Helper()
	l, err := p.Lease(owner, size)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// slabsFrom sets the pool to n whole slabs.
func (cfg Config) slabsFrom(first, n int) Config {
	cfg.First = idmap.Host(first * slabIDs)
	cfg.Last = idmap.Host((first+n)*slabIDs - rangeIDs)
	return cfg
}

func overlap(a, b record.Lease) bool {
	x, y := ranges(a), ranges(b)
	return x.from < y.to && y.from < x.to
}

// process adds a process to the process list.
func process(t *testing.T, cfg Config, pid int, uids, gids string) {
	t.Helper()
	dir := filepath.Join(cfg.Proc, strconv.Itoa(pid))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "uid_map"), uids)
	write(t, filepath.Join(dir, "gid_map"), gids)
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

// TestDockremapAndThePoolStayApart makes the user of userns-remap beside a pool
// that has claimed what comes first, and a pool after it.
func TestDockremapAndThePoolStayApart(t *testing.T) {
	cfg := newHost(t)
	write(t, cfg.SubUID, "ann:100000:424288\n") // up to the pool
	cfg.First, cfg.Last = defaultFirst, 6*slabIDs-rangeIDs
	p := open(t, cfg)
	for i := range 7 {
		lease(t, p, strconv.Itoa(i), 32*rangeIDs)
	}
	p.Close()
	files := hostOf(cfg).ids
	files.Leased = func() ([]hostids.Claim, error) { return Claimed(cfg.ClaimDir) }
	pair, _, err := hostids.Remap("default", files)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.slabs {
		if _, bad := pair.UID.HostOverlap(s.base(), slabIDs); bad && s.number != 0 {
			t.Errorf("%s is in the claimed slab %d", pair.UID.List(), s.number)
		}
	}
	cfg = another(t, cfg)
	cfg.First = pair.UID.Spans()[0].Out / rangeIDs * rangeIDs
	cfg.Last = cfg.First + 2*rangeIDs
	l := lease(t, open(t, cfg), "c", 0)
	if _, bad := pair.UID.HostOverlap(l.Base, l.Size); bad {
		t.Errorf("the pool leases %d, which is in %s of dockremap", l.Base, pair.UID.List())
	}
}

func TestLinesOfTheUidOfFiefAreThePool(t *testing.T) {
	cfg := newHost(t)
	write(t, cfg.Passwd, read(t, cfg.Passwd)+"fief:x:911:911::/:/bin/false\n")
	write(t, cfg.SubUID, "911:655360:131072\n")
	write(t, cfg.SubGID, "fief:720896:131072\n")
	if l := lease(t, open(t, cfg), "c", 0); l.Base != 720896 {
		t.Errorf("leased %d", l.Base)
	}
}

// TestEnginesAreSteppedAround gives all of the pool but one range to Docker.
func TestEnginesAreSteppedAround(t *testing.T) {
	cfg := newHost(t).slabsFrom(1, 1)
	for i := range slabRanges - 1 {
		base := strconv.Itoa(slabIDs + i*rangeIDs)
		if err := os.MkdirAll(filepath.Join(cfg.Root, "var/lib/docker", base+"."+base), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if l := lease(t, open(t, cfg), "c", 0); l.Base != 2*slabIDs-rangeIDs {
		t.Errorf("leased %d", l.Base)
	}
}

func TestNameServicesAreAskedForBases(t *testing.T) {
	cfg := newHost(t)
	h := hostOf(cfg)
	h.ids.Getent = filepath.Join(t.TempDir(), "getent")
	if err := os.WriteFile(h.ids.Getent, []byte("#!/bin/sh\necho ann:x:524288:4:::\nexit 2\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	bases := []idmap.Host{524288, 589824}
	if got, err := h.nss(bases); err != nil || len(got) != 0 {
		t.Errorf("asked without a service: %v, %v", got, err)
	}
	write(t, cfg.NSSwitch, "passwd: files sss\n")
	if got, err := h.nss(bases); err != nil || len(got) != 1 || got[0] != (extent{524288, 524289}) {
		t.Errorf("%v, %v", got, err)
	}
	write(t, h.ids.Getent, "#!/bin/sh\nexit 9\n")
	if got, err := h.nss(bases); !fault.Is(err, fault.Unavailable) || len(got) != 0 {
		t.Errorf("a broken service: %v, %v", got, err)
	}
}

// TestServicesThatDoNotAnswer: no range is taken while it is not known whose it is,
// unless the files have lines for user fief; what is leased already is not touched.
func TestServicesThatDoNotAnswer(t *testing.T) {
	cfg := newHost(t)
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	const broken, knowsNone = "#!/bin/sh\nexit 9\n", "#!/bin/sh\nexit 2\n"
	for _, c := range []struct{ program, switches, works string }{
		{"getent", "passwd: files sss\n", knowsNone},
		{"getsubids", "passwd: files\nsubid: sss\n", "#!/bin/sh\nexit 1\n"},
	} {
		cfg := another(t, cfg)
		cfg.ClaimDir = t.TempDir()
		write(t, cfg.NSSwitch, c.switches)
		program := filepath.Join(bin, c.program)
		script := func(text string) {
			if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		script(broken)
		p := open(t, cfg)
		if l, err := p.Lease("c", 0); !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.HintOf(err), "fief:FIRST:COUNT in "+cfg.SubUID) {
			t.Errorf("%s is broken: leased %d, %v, %s", c.program, l.Base, err, fault.HintOf(err))
		}
		if list, err := os.ReadDir(cfg.ClaimDir); err != nil || slices.ContainsFunc(list, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "slab-") }) {
			t.Errorf("%s is broken: claimed %v, %v", c.program, list, err)
		}
		// What is in use is taken over all the same, but nothing beside it is given.
		held := Held{Owner: "held", Lease: record.Lease{Base: 8 << 22, Size: 65536}}
		for range 2 { // and by the next daemon
			again := another(t, cfg)
			again.DataRoot, again.ClaimDir = cfg.DataRoot, filepath.Join(cfg.DataRoot, "claims")
			q := open(t, again, held)
			if lost := q.Lost(); len(lost) > 0 {
				t.Errorf("%s is broken: %v is not taken over", c.program, lost)
			}
			if l, err := q.Lease("new", 0); !fault.Is(err, fault.Unavailable) {
				t.Errorf("%s is broken: leased %d beside what is held, %v", c.program, l.Base, err)
			}
			q.Close()
		}
		script(c.works)
		lease(t, p, "c", 0)
		script(broken)
		lease(t, p, "d", 0) // of what is claimed

		cfg = another(t, cfg)
		cfg.ClaimDir = t.TempDir()
		for _, path := range []string{cfg.SubUID, cfg.SubGID} {
			write(t, path, "fief:6291456:131072\n")
		}
		if l := lease(t, open(t, cfg), "c", 0); l.Base < 6291456 || l.Base >= 6291456+131072 {
			t.Errorf("%s is broken, with lines: leased %d", c.program, l.Base)
		}
		for _, path := range []string{cfg.SubUID, cfg.SubGID} {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}
