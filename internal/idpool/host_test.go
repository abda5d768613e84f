package idpool

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"go.uber.org/goleak"

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
