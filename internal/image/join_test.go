package image

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/opencontainers/go-digest"
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
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
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

// Two images that share a layer are one download of it, which both see, and
// which goes on whoever leaves.
func TestLayersJoin(t *testing.T) {
	big := registrytest.Layer("b", random(400<<10))
	one, two := registrytest.Gzipped(big, registrytest.Layer("1", "1")), registrytest.Gzipped(registrytest.Layer("2", "2"), big)
	bar, blob := barOf(digest.FromBytes(one.Blobs[0])), digest.FromBytes(one.Blobs[0]).String()
	for _, leaving := range []string{"nobody", "first", "second", "both"} {
		t.Run(leaving, func(t *testing.T) {
			g, host, half, goOn := slowly(t, one)
			g.Push("other", "latest", two)
			w := newWorld(t)
			started := func(name string) (context.CancelFunc, *heard, <-chan error) {
				ctx, cancel := context.WithCancel(context.Background())
				t.Cleanup(cancel)
				h, errs := &heard{}, make(chan error, 1)
				go func() {
					_, err := w.Pull(ctx, ask.PullImage{Name: host + name}, h.tell)
					errs <- err
				}()
				return cancel, h, errs
			}
			before := w.state(t)
			leave1, first, errs1 := started("/img")
			<-half
			leave2, second, errs2 := started("/other")
			second.hasBar(t, bar, "Downloading") // of the half that came before it
			gone := map[string]bool{"first": leaving == "first" || leaving == "both", "second": leaving == "second" || leaving == "both"}
			if gone["first"] {
				leave1()
				wantClass(t, <-errs1, fault.Canceled, "")
			}
			if gone["second"] {
				leave2()
				wantClass(t, <-errs2, fault.Canceled, "")
			}
			if leaving == "both" {
				if after := w.state(t); after != before {
					t.Errorf("left:\n%s", after)
				}
			}
			goOn()
			if !gone["first"] {
				if err := <-errs1; err != nil {
					t.Error(err)
				}
				first.hasBar(t, bar, "Pull complete")
			}
			if !gone["second"] {
				if err := <-errs2; err != nil {
					t.Error(err)
				}
				second.hasBar(t, bar, "Extracting")
				second.hasBar(t, bar, "Pull complete")
			}
			if n := g.Asked(blob); n != 1 {
				t.Errorf("the layer was asked for %d times", n)
			}
		})
	}
}

// hasBar waits until a bar was told so.
func (h *heard) hasBar(t *testing.T, bar, status string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		h.mu.Lock()
		found := slices.ContainsFunc(h.all, func(p record.Progress) bool { return p.ID == bar && p.Status == status })
		h.mu.Unlock()
		if found {
			return
		}
	}
	t.Fatalf("%s was not told %q but %+v", bar, status, h.all)
}

// When the pull that began to download a layer fails, another one that waits
// for the layer goes on: with the same download when something else was wrong,
// and from its own registry when it was the layer.
func TestLayersTakenOver(t *testing.T) {
	big, other := registrytest.Layer("b", random(400<<10)), registrytest.Layer("2", "2")
	one, two := registrytest.Gzipped(big, registrytest.Layer("1", "1")), registrytest.Gzipped(other, big)
	blob := digest.FromBytes(one.Blobs[0]).String()
	for _, why := range []string{"something else is missing", "the layer is damaged"} {
		t.Run(why, func(t *testing.T) {
			joined, arrived := make(chan struct{}), make(chan struct{})
			arriving := sync.OnceFunc(func() { close(arrived) })
			bad := &registrytest.Registry{Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
				switch {
				case isBlob(r, one.Blobs[0]):
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
					w.Write(body[:1000])
					w.(http.Flusher).Flush()
					arriving()
					<-joined
					if why == "the layer is damaged" {
						body = bytes.Repeat([]byte{0}, len(body))
					} else {
						time.Sleep(200 * time.Millisecond) // the other layer fails meanwhile
					}
					w.Write(body[1000:])
					return true
				case isBlob(r, one.Blobs[1]) && why == "something else is missing":
					<-joined
					http.NotFound(w, r)
					return true
				}
				return false
			}}
			good := &registrytest.Registry{}
			from, host := serve(t, bad), serve(t, good)
			bad.Push("img", "latest", one)
			good.Push("img", "latest", two)
			w := newWorld(t)
			errs := make(chan error, 2)
			go func() {
				_, err := w.Pull(context.Background(), ask.PullImage{Name: from + "/img"}, nil)
				errs <- err
			}()
			<-arrived
			var second heard
			done := make(chan error, 1)
			go func() {
				_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/img"}, second.tell)
				done <- err
			}()
			second.hasBar(t, barOf(digest.Digest(blob)), "Downloading")
			close(joined)
			if err := <-errs; err == nil {
				t.Error("the first pull did not fail")
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			want := map[string]int{"something else is missing": 0, "the layer is damaged": 1}[why]
			if n := good.Asked(blob); n != want {
				t.Errorf("the second registry was asked %d times, want %d", n, want)
			}
			img, err := w.Resolve(host + "/img")
			if err != nil || len(w.List()) != 1 {
				t.Fatal(w.List(), err)
			}
			for _, l := range img.Layers {
				if !w.layers.Has(l.DiffID) || !w.blobs.has(l.Digest, l.Bytes) {
					t.Errorf("%+v is not whole", l)
				}
			}
			w.unchanged(t, func() {})
		})
	}
}
