package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/fault"
)

type value struct{ N int }

func open(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func get(t *testing.T, b *Bucket, key string) int {
	t.Helper()
	var v value
	ok, err := b.Get(key, &v)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return -1
	}
	return v.N
}

func TestPutSurvivesReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	b := db.Bucket("images")
	for _, err := range []error{
		b.Put("a", value{1}), b.Put("b", value{2}), b.PutSoon("c", value{3}), b.Delete("b"), b.Delete("never"),
		b.PutAll(map[string]any{"a": value{4}, "d": value{5}, "c": nil}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, path).Bucket("images")
	for key, want := range map[string]int{"a": 4, "b": -1, "c": -1, "d": 5} {
		if got := get(t, b, key); got != want {
			t.Errorf("%s = %d, want %d", key, got, want)
		}
	}
}

// A crash keeps what Put acknowledged: the file as it is at that moment,
// copied, opens with the value.
func TestPutIsInTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	b := open(t, path).Bucket("x")
	if err := b.Put("k", value{7}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "copy.db")
	if err := os.WriteFile(copied, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := get(t, open(t, copied).Bucket("x"), "k"); got != 7 {
		t.Errorf("after the crash: %d", got)
	}
}

func TestPutSoonIsSeenAtOnce(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	b := db.Bucket("x")
	for i := range 2000 {
		if err := b.PutSoon("k", value{i}); err != nil {
			t.Fatal(err)
		}
		if got := get(t, b, "k"); got != i {
			t.Fatalf("read %d after writing %d", got, i)
		}
	}
	seen := 0
	b.Each(func(key string, raw []byte) error { seen++; return nil })
	if seen != 1 {
		t.Errorf("Each saw %d", seen)
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, waits := db.queue.pending(place{"x", "k"}); waits {
		t.Error("still waiting after Flush")
	}
}

func TestEachMayWrite(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "state.db")).Bucket("x")
	big := strings.Repeat("v", 1<<16) // makes the file grow while Each runs
	for i := range 20 {
		if err := b.Put(fmt.Sprint(i), big); err != nil {
			t.Fatal(err)
		}
	}
	err := b.Each(func(key string, raw []byte) error { return b.Put("new"+key, big) })
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := b.Each(func(string, []byte) error { return stop }); err != stop {
		t.Errorf("Each returned %v", err)
	}
}

func TestManyWriters(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	b := db.Bucket("x")
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			key := fmt.Sprint(i)
			if err := b.PutSoon(key, value{-2}); err != nil {
				t.Error(err)
			}
			if err := b.Put(key, value{i}); err != nil {
				t.Error(err)
			}
			if got := get(t, b, key); got != i {
				t.Errorf("%s = %d", key, got)
			}
		})
	}
	wg.Wait()
}

func TestSecondDaemonIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	_, err := Open(path)
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "in use by another daemon") {
		t.Fatalf("got %v", err)
	}
	db.Close()
	open(t, path)
}

func TestNewerSchemaIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	if err := db.Bucket(metaBucket).Put(schemaKey, Schema+1); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := Open(path); !fault.Is(err, fault.Unsupported) {
		t.Fatalf("got %v", err)
	}
}

func TestGarbageIsCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	garbage := bytes.Repeat([]byte("not a database "), 4096)
	if err := os.WriteFile(path, garbage, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !fault.Is(err, fault.Corrupt) {
		t.Fatalf("got %v", err)
	}
	after, _ := os.ReadFile(path)
	if !bytes.Equal(after, garbage) {
		t.Error("the file was changed")
	}
}

func TestMissingDirectory(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "no", "state.db")); !fault.Is(err, fault.NotFound) {
		t.Fatalf("got %v", err)
	}
}

func TestClosedAndBadKeys(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	b := db.Bucket("x")
	if err := b.Put("", 1); err == nil {
		t.Error("took an empty key")
	}
	if err := b.Put(strings.Repeat("k", 40000), 1); err == nil {
		t.Error("took a long key")
	}
	if err := b.Put("text", "not a number"); err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := b.Get("text", &n); !fault.Is(err, fault.Corrupt) {
		t.Errorf("got %v", err)
	}
	db.Close()
	for _, err := range []error{b.Put("a", 1), b.PutSoon("a", 1), b.Delete("a"), db.Flush()} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// A full file system fails the write, keeps every former value, and the state
// can be used again when there is space.
func TestFullDisk(t *testing.T) {
	dir := mnttest.SmallFS(t, "4m")
	db := open(t, filepath.Join(dir, "state.db"))
	b := db.Bucket("x")
	if err := b.Put("first", value{1}); err != nil {
		t.Fatal(err)
	}
	var err error
	big := strings.Repeat("v", 100<<10)
	for i := 0; err == nil && i < 100; i++ {
		err = b.Put(fmt.Sprint("big", i), big)
	}
	if !fault.Is(err, fault.Exhausted) {
		t.Fatalf("got %v", err)
	}
	if err := b.PutSoon("soon", value{2}); err != nil {
		t.Fatal(err)
	}
	if get(t, b, "first") != 1 || get(t, b, "soon") != 2 {
		t.Error("values lost")
	}
	if err := b.Delete("big0"); err != nil {
		t.Fatalf("a full disk does not let go: %v", err)
	}
	if err := b.Put("last", value{3}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	b = open(t, filepath.Join(dir, "state.db")).Bucket("x")
	for key, want := range map[string]int{"first": 1, "soon": 2, "last": 3} {
		if got := get(t, b, key); got != want {
			t.Errorf("%s = %d", key, got)
		}
	}
}
