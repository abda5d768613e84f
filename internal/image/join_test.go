package image

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// slowly is a registry that sends half of a blob, and the rest when told to.
func slowly(t *testing.T, img registrytest.Image) (g *registrytest.Registry, host string, half <-chan struct{}, goOn func()) {
	t.Helper()
	reached, release := make(chan struct{}), make(chan struct{})
	var once, free sync.Once
	g = &registrytest.Registry{Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if !isBlob(r, img.Blobs[0]) {
			return false
		}
		w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		once.Do(func() { close(reached) })
		select {
		case <-release:
		case <-r.Context().Done():
			return true
		}
		w.Write(body[len(body)/2:])
		return true
	}}
	host = serve(t, g)
	g.Push("img", "latest", img)
	goOn = func() { free.Do(func() { close(release) }) }
	t.Cleanup(goOn)
	return g, host, reached, goOn
}

// heard collects what one client is told.
type heard struct {
	mu  sync.Mutex
	all []record.Progress
}

func (h *heard) tell(p record.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, p)
}

func (h *heard) has(t *testing.T, status string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		h.mu.Lock()
		for _, p := range h.all {
			if strings.HasPrefix(p.Status, status) {
				h.mu.Unlock()
				return
			}
		}
		h.mu.Unlock()
	}
	t.Fatalf("was not told %q but %+v", status, h.all)
}

// Two pulls of the same are one download that both see. Neither the first's
// going nor a client that does not read its progress stops the other.
func TestPullJoins(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("b", random(400<<10)))
	for _, leaving := range []string{"nobody", "first", "deaf"} {
		t.Run(leaving, func(t *testing.T) {
			g, host, half, goOn := slowly(t, img)
			w := newWorld(t)
			ctx, leave := context.WithCancel(context.Background())
			defer leave()
			want := ask.PullImage{Name: host + "/img"}
			errs := make(chan error, 2)
			var first, second heard
			deaf := make(chan struct{})
			go func() {
				_, err := w.Pull(ctx, want, func(p record.Progress) {
					first.tell(p)
					if leaving == "deaf" {
						<-deaf
					}
				})
				errs <- err
			}()
			<-half
			var img record.Image
			go func() {
				got, err := w.Pull(context.Background(), want, second.tell)
				img = got
				errs <- err
			}()
			second.has(t, "Downloading") // though it came late
			second.has(t, "Pulling from img")
			if leaving == "first" {
				leave()
				wantClass(t, <-errs, fault.Canceled, "")
			}
			goOn()
			if err := <-errs; err != nil {
				t.Error(err)
			}
			if leaving == "deaf" {
				close(deaf)
			}
			if leaving != "first" {
				if err := <-errs; err != nil {
					t.Error(err)
				}
				first.has(t, "Status: Downloaded")
			}
			second.has(t, "Status: Downloaded")
			if got, err := w.Resolve(host + "/img"); err != nil || got.ID != img.ID || g.Sent("GET", "/manifests/") != 1 || g.Sent("GET", "/blobs/") != 2 {
				t.Errorf("%d manifests and %d blobs were fetched; %v", g.Sent("GET", "/manifests/"), g.Sent("GET", "/blobs/"), err)
			}
		})
	}
}

// When everybody has left, nothing stays; who comes then begins anew. Others'
// credentials are no ticket.
func TestPullJoinsEnd(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("b", random(400<<10)))
	g, host, half, goOn := slowly(t, img)
	g.Auth = registrytest.Auth{Scheme: "basic", User: "u", Password: "p"}
	w := newWorld(t)
	want := ask.PullImage{Name: host + "/img", Auth: ask.RegistryAuth{Username: "u", Password: "p"}}
	w.unchanged(t, func() {
		ctx, leave := context.WithCancel(context.Background())
		errs := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := w.Pull(ctx, want, nil)
				errs <- err
			}()
		}
		<-half
		_, err := w.Pull(context.Background(), ask.PullImage{Name: want.Name}, nil)
		wantClass(t, err, fault.Denied, "pull access denied")
		leave()
		for range 2 {
			wantClass(t, <-errs, fault.Canceled, "")
		}
	})
	goOn()
	if _, err := w.Pull(context.Background(), want, nil); err != nil {
		t.Error(err)
	}
}
