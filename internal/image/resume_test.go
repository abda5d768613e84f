package image

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// A download that breaks off again and again, anywhere, arrives as long as it
// gets ahead, and nothing of it is sent twice; one that does not get ahead is
// given up.
func TestBreaksOften(t *testing.T) {
	img := registrytest.Gzipped(largeLayer())
	for name, c := range map[string]struct {
		least int // bytes until the connection breaks
		ok    bool
		tries int32
	}{
		"getting ahead": {1 << 20, true, 0},
		"hardly":        {10 << 10, false, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int32
			var sent atomic.Int64
			g := &registrytest.Registry{Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
				if !isBlob(r, img.Blobs[0]) {
					return false
				}
				tries.Add(1)
				first, last, status := 0, len(body)-1, http.StatusOK
				if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n == 2 {
					status = http.StatusPartialContent
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(body)))
				}
				part := body[first : last+1]
				w.Header().Set("Content-Length", fmt.Sprint(len(part)))
				w.WriteHeader(status)
				part = part[:min(len(part), c.least+rand.IntN(c.least/2))]
				sent.Add(int64(len(part)))
				w.Write(part)
				return true
			}}
			host := serve(t, g)
			g.Push("img", "latest", img)
			w := newWorld(t)
			_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/img"}, nil)
			if !c.ok {
				wantClass(t, err, fault.Unavailable, "")
			} else if err != nil {
				t.Error(err)
			}
			if size := int64(len(img.Blobs[0])); c.ok && sent.Load() > size || c.tries > 0 && tries.Load() != c.tries || tries.Load() < 3 {
				t.Errorf("%d requests, %d of %d bytes sent", tries.Load(), sent.Load(), size)
			}
		})
	}
}

// A manifest that breaks off is asked for again; one that comes byte by byte is
// given up, as is a list of tags.
func TestSlowDocuments(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("a", "1"))
	dribble := func(w http.ResponseWriter, r *http.Request, body []byte) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		for i := 0; i < len(body) && r.Context().Err() == nil; i++ {
			w.Write(body[i : i+1])
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	}
	for name, c := range map[string]struct {
		breaks  int32 // of the answers to GET
		slow    bool
		tries   int32
		succeed bool
	}{
		"breaks twice":   {2, false, 3, true},
		"breaks always":  {99, false, 3, false},
		"dribbles once":  {1, true, 2, true},
		"always dribble": {99, true, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int32
			g := &registrytest.Registry{Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") || tries.Add(1) > c.breaks {
					return false
				}
				if c.slow {
					dribble(w, r, body)
					return true
				}
				w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				w.Write(body[:len(body)/2])
				return true
			}}
			host := serve(t, g)
			g.Push("img", "latest", img)
			w := newWorld(t)
			w.opt.Stall = 300 * time.Millisecond
			_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/img"}, nil)
			if c.succeed && err != nil || tries.Load() != c.tries {
				t.Errorf("%v after %d requests", err, tries.Load())
			}
			if !c.succeed {
				wantClass(t, err, fault.Unavailable, "")
			}
		})
	}
}

// Giving up is prompt, whatever the registry does meanwhile.
func TestCancelIsPrompt(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("a", random(100<<10)))
	for _, where := range []string{"/manifests/", "/blobs/"} {
		for _, how := range []string{"silent", "busy", "half"} {
			t.Run(where+how, func(t *testing.T) {
				t.Parallel()
				reached := make(chan struct{}, 100)
				g := &registrytest.Registry{Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
					if !strings.Contains(r.URL.Path, where) {
						return false
					}
					switch how {
					case "busy":
						w.Header().Set("Retry-After", "20")
						w.WriteHeader(http.StatusServiceUnavailable)
					case "half":
						w.Header().Set("Content-Length", fmt.Sprint(len(body)))
						w.Write(body[:len(body)/2])
						w.(http.Flusher).Flush()
					}
					reached <- struct{}{}
					if how != "busy" {
						<-r.Context().Done()
					}
					return true
				}}
				host := serve(t, g)
				g.Push("img", "latest", img)
				w := newWorld(t)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				done := make(chan error, 1)
				go func() {
					_, err := w.Pull(ctx, ask.PullImage{Name: host + "/img"}, nil)
					done <- err
				}()
				<-reached
				cancel()
				select {
				case err := <-done:
					wantClass(t, err, fault.Canceled, "")
				case <-time.After(time.Minute):
					t.Fatal("the pull goes on")
				}
			})
		}
	}
}
