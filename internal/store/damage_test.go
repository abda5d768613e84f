package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/words/fault"
)

// sample is a file with buckets of several pages, of one, and inside another's
// page.
func sample(t testing.TB, many int) []byte {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for bucket, n := range map[string]int{"containers": many, "images": 30, "quarantine": 2} {
		changes := map[string]any{}
		for i := range n {
			changes[fmt.Sprintf("key-%04d", i)] = strings.Repeat("v", 60+i%90)
		}
		changes["large"] = strings.Repeat("x", 9000)
		if err := db.Bucket(bucket).PutAll(changes); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// use opens a file, reads and writes it. What was damaged is Corrupt, or reads as
// something else; never is it the end of the process.
func use(path string) error {
	db, err := Open(path)
	if err != nil {
		if c := fault.ClassOf(err); c != fault.Corrupt && c != fault.Unsupported {
			return fmt.Errorf("class %v: %w", c, err)
		}
		return nil
	}
	for _, name := range []string{"containers", "images", "quarantine"} {
		b := db.Bucket(name)
		b.Each(func(string, []byte) error { return nil })
		b.Delete("key-0001")
		b.Put("key-0002", strings.Repeat("w", 200))
	}
	db.Close()
	return nil
}

func harm(raw []byte, r *rand.Rand) []byte {
	raw = append([]byte(nil), raw...)
	switch r.IntN(7) {
	case 0:
		return raw[:r.IntN(len(raw))]
	case 1: // a sector that was never written
		at := r.IntN(len(raw)/512) * 512
		clear(raw[at : at+512])
	case 2: // a page where another belongs
		pages := len(raw) / os.Getpagesize()
		copy(raw[r.IntN(pages)*os.Getpagesize():], raw[r.IntN(pages)*os.Getpagesize():][:os.Getpagesize()])
	case 3: // in a page's header or its first elements
		at := r.IntN(len(raw)/os.Getpagesize())*os.Getpagesize() + r.IntN(64)
		raw[at] = byte(r.Uint32())
	case 4: // in a key, so that order is lost more than anything else
		for _, at := range r.Perm(len(raw) - 8) {
			if bytes.HasPrefix(raw[at:], []byte("key")) {
				raw[at+3+r.IntN(5)] ^= 1 << r.IntN(8)
				break
			}
		}
	default:
		for range 1 + r.IntN(3) {
			raw[r.IntN(len(raw))] ^= 1 << r.IntN(8)
		}
	}
	return raw
}

// A file damaged in any way is opened, or refused as damaged, by a process that
// goes on: bbolt's own panics cannot all be caught.
func TestDamagedFiles(t *testing.T) {
	if os.Getenv("FIEF_STORE_DAMAGE") != "" {
		damageSome(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestDamagedFiles$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("FIEF_STORE_DAMAGE=%d", time.Now().UnixNano()))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%.3000s", err, out)
	}
}

func damageSome(t *testing.T) {
	var seed uint64
	fmt.Sscan(os.Getenv("FIEF_STORE_DAMAGE"), &seed)
	fmt.Println("FIEF_STORE_DAMAGE =", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	raw := sample(t, 900)
	dir := t.TempDir()
	if _, err := os.Stat("/dev/shm"); err == nil {
		dir, _ = os.MkdirTemp("/dev/shm", "fief-store-")
		defer os.RemoveAll(dir)
	}
	path := filepath.Join(dir, "state.db")
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if err := os.WriteFile(path, harm(raw, r), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := use(path); err != nil {
			t.Fatal(err)
		}
		os.Remove(path + ".reserve")
	}
}

// Whatever bytes a file has, looking through it ends with an answer.
func FuzzOpen(f *testing.F) {
	f.Add(sample(f, 3))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "state.db")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := use(path); err != nil && len(raw) > 0 {
			t.Error(err)
		}
	})
}
