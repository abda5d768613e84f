package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// memIndex is an Index in memory that survives a "crash" of the store.
type memIndex struct {
	mu   sync.Mutex
	all  map[string][]byte
	fail func(changes map[string]any) error
}

func (m *memIndex) PutAll(changes map[string]any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(changes); err != nil {
			return err
		}
	}
	for k, v := range changes {
		if v == nil {
			delete(m.all, k)
			continue
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		m.all[k] = raw
	}
	return nil
}

func (m *memIndex) Each(f func(string, []byte) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(m.all)) {
		if err := f(k, m.all[k]); err != nil {
			return err
		}
	}
	return nil
}

// memLayers is Layers that keeps the tars.
type memLayers struct {
	mu       sync.Mutex
	tars     map[string][]byte
	unpacked map[string]int
	fail     func(diffID string) error
	inside   func() // called while a layer is being unpacked
}

func (m *memLayers) Has(diffID string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.tars[diffID]
	return ok
}

func (m *memLayers) Unpack(ctx context.Context, diffID string, r io.Reader) (record.Layer, error) {
	if m.inside != nil {
		m.inside()
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return record.Layer{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(diffID); err != nil {
			return record.Layer{}, err
		}
	}
	if m.tars[diffID] != nil {
		return record.Layer{}, errors.New("unpacked twice")
	}
	m.tars[diffID] = raw
	m.unpacked[diffID]++
	return record.Layer{Size: int64(len(raw)), MaxUID: 7, Files: 1}, nil
}

func (m *memLayers) Remove(diffID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tars, diffID)
	return nil
}

// world is a store with what it stands on.
type world struct {
	*Store
	dir    string
	index  *memIndex
	layers *memLayers
	told   []record.Progress
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), index: &memIndex{all: map[string][]byte{}},
		layers: &memLayers{tars: map[string][]byte{}, unpacked: map[string]int{}}}
	w.reopen(t)
	t.Cleanup(func() { w.Close() })
	return w
}

// reopen is a restart of the daemon.
func (w *world) reopen(t testing.TB) {
	t.Helper()
	if w.Store != nil {
		w.Close()
	}
	s, err := Open(w.dir, w.index, w.layers, Options{Platform: "linux/amd64", Stall: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	w.Store = s
}

func (w *world) tell(p record.Progress) { w.told = append(w.told, p) }

// state is everything that must be as before after a failure.
func (w *world) state(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(w.index.all)) {
		fmt.Fprintln(&b, k, string(w.index.all[k]))
	}
	for _, k := range slices.Sorted(maps.Keys(w.layers.tars)) {
		fmt.Fprintln(&b, "layer", k)
	}
	for _, dir := range []string{".", "ingest", "blobs/sha256"} {
		names, err := os.ReadDir(filepath.Join(w.dir, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			fmt.Fprintln(&b, dir, n.Name())
		}
	}
	raw, err := os.ReadFile(filepath.Join(w.dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	b.Write(raw)
	return b.String()
}

// unchanged fails the test when do changes anything, at once or after a restart.
func (w *world) unchanged(t *testing.T, do func()) {
	t.Helper()
	before := w.state(t)
	do()
	if after := w.state(t); after != before {
		t.Errorf("state was\n%s\nand is\n%s", before, after)
	}
	w.reopen(t)
	if after := w.state(t); after != before {
		t.Errorf("after a restart, state was\n%s\nand is\n%s", before, after)
	}
}

func serve(t testing.TB, g *registrytest.Registry) string {
	t.Helper()
	srv := httptest.NewServer(g)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func (w *world) pull(t testing.TB, name string) record.Image {
	t.Helper()
	img, err := w.Pull(context.Background(), ask.PullImage{Name: name}, w.tell)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func wantClass(t *testing.T, err error, class fault.Class, text string) {
	t.Helper()
	if err == nil || fault.ClassOf(err) != class || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v error %v, want %v with %q", fault.ClassOf(err), err, class, text)
	}
}
