package remote_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/image/remote"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A large blob goes in chunks, and only what did not arrive goes again.
func TestChunks(t *testing.T) {
	blob := make([]byte, 3300<<10)
	io.ReadFull(rand.Reader, blob)
	for name, c := range map[string]struct {
		pushing registrytest.Pushing
		breaks  bool
		most    int64 // bytes that may go
	}{
		"chunks":         {registrytest.Pushing{}, false, 3300 << 10},
		"one breaks":     {registrytest.Pushing{}, true, 3700 << 10},
		"one forgotten":  {registrytest.Pushing{Forgets: true}, true, 6600 << 10},
		"none are taken": {registrytest.Pushing{NoChunks: true}, false, 4400 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			var chunks atomic.Int32
			var sent atomic.Int64
			c.pushing.Tamper = func(w http.ResponseWriter, r *http.Request) bool {
				body := r.Body
				limit := int64(1 << 40)
				if r.Method == http.MethodPatch && chunks.Add(1) == 2 && c.breaks {
					limit = 300 << 10
				}
				r.Body = &meter{body, &sent, limit}
				return false
			}
			g := &registrytest.Registry{Pushing: c.pushing}
			srv := httptest.NewServer(g)
			defer srv.Close()
			named, err := reference.ParseNormalizedNamed(strings.TrimPrefix(srv.URL, "http://") + "/big")
			if err != nil {
				t.Fatal(err)
			}
			repo, err := remote.Connect(context.Background(), named, remote.Options{Chunk: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer repo.Close()
			desc := ocispec.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
			out, err := repo.PushBlob(context.Background(), desc, bytes.NewReader(blob), nil, func(int64) {})
			if err != nil || out.There {
				t.Fatal(out, err)
			}
			if there, err := repo.Has(context.Background(), desc); err != nil || !there {
				t.Error("it did not arrive", err)
			}
			if sent.Load() > c.most {
				t.Errorf("%d KiB went", sent.Load()>>10)
			}
		})
	}
}

// meter counts a body, and breaks the connection after limit bytes of it.
type meter struct {
	io.ReadCloser
	sent  *atomic.Int64
	limit int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	m.sent.Add(int64(n))
	if m.limit -= int64(n); m.limit < 0 {
		return n, fmt.Errorf("broken")
	}
	return n, err
}
