package image

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// mirrored gives the store mirrors of a registry.
func (w *world) mirrored(t testing.TB, registry string, mirrors ...string) {
	t.Helper()
	w.opt.Registries = Registries{}
	if err := w.opt.Registries.ParseRegistry(registry, mirrors, false); err != nil {
		t.Fatal(err)
	}
}

func mustPull(t *testing.T, w *world, want ask.PullImage) string {
	t.Helper()
	img, err := w.Pull(context.Background(), want, w.tell)
	if err != nil {
		t.Fatal(err)
	}
	return img.ID
}

// Mirrors are asked in order, then the origin; none of them sees credentials.
func TestMirrors(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("a", "1"), registrytest.Layer("b", random(100<<10)))
	old := registrytest.Gzipped(registrytest.Layer("a", "0"))
	secret := registrytest.Auth{Scheme: "basic", User: "u", Password: "p"}
	var seen atomic.Int32
	watched := func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Header.Get("Authorization") != "" {
			seen.Add(1)
		}
		return false
	}
	empty, full, origin := &registrytest.Registry{Tamper: watched}, &registrytest.Registry{Tamper: watched}, &registrytest.Registry{Auth: secret}
	emptyHost, fullHost, host := serve(t, empty), serve(t, full), serve(t, origin)
	desc := full.Push("cache/hub/lib/img", "latest", img)
	origin.Push("lib/img", "latest", old)
	origin.Push("lib/own", "latest", old)
	want := ask.PullImage{Name: host + "/lib/img", Auth: ask.RegistryAuth{Username: "u", Password: "p"}}
	w := newWorld(t)
	w.mirrored(t, host, "http://127.0.0.1:1", "http://"+emptyHost, "http://"+fullHost+"/cache/hub")

	_, manifest, _ := img.Files()
	if id := mustPull(t, w, want); w.known.Load().images[id].Image.Manifest != digestOf(manifest) {
		t.Error("the origin was asked although a mirror has it")
	}
	if origin.Asked("") != 0 {
		t.Errorf("the origin was asked %d times", origin.Asked(""))
	}
	if got := w.List()[0].Digests; len(got) != 1 || got[0] != host+"/lib/img@"+desc.Digest.String() {
		t.Errorf("known as %v", got)
	}
	mustPull(t, w, ask.PullImage{Name: host + "/lib/own", Auth: want.Auth})
	if seen.Load() != 0 {
		t.Error("a mirror was sent the origin's credentials")
	}
	_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/lib/none", Auth: want.Auth}, nil)
	wantClass(t, err, fault.NotFound, "manifest for "+host+"/lib/none:latest not found")
}

// What a digest pins is checked whoever sends it; the next one is asked.
func TestLyingMirror(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("b", random(300<<10)))
	for name, tamper := range map[string]func(w http.ResponseWriter, r *http.Request, body []byte) bool{
		"wrong bytes": func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if isBlob(r, img.Blobs[0]) {
				w.Write(append([]byte("x"), body[1:]...))
			}
			return isBlob(r, img.Blobs[0])
		},
		"cut off for ever": func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if isBlob(r, img.Blobs[0]) {
				w.Header().Set("Content-Length", "307200")
				w.Write(body[:1000])
			}
			return isBlob(r, img.Blobs[0])
		},
		"another manifest": func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
				w.Write([]byte(`{"schemaVersion":2}`))
			}
			return strings.Contains(r.URL.Path, "/manifests/")
		},
		"trouble": func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			liar, origin := &registrytest.Registry{Tamper: tamper}, &registrytest.Registry{}
			host := serve(t, origin)
			liar.Push("img", "latest", img)
			desc := origin.Push("img", "latest", img)
			w := newWorld(t)
			w.mirrored(t, host, "http://"+serve(t, liar))
			mustPull(t, w, ask.PullImage{Name: host + "/img@" + desc.Digest.String()})
			if origin.Asked("") == 0 {
				t.Error("the origin was not asked")
			}
		})
	}
}

// A registry that is busy, or breaks off, is asked again; one that says no is not.
func TestFaultyRegistry(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("b", random(400<<10)))
	blob := img.Blobs[0]
	var tries atomic.Int32
	cut := func(w http.ResponseWriter, body []byte, n int) {
		w.Header().Set("Accept-Ranges", "bytes")
		w.Write(body[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	for name, c := range map[string]struct {
		tamper func(w http.ResponseWriter, r *http.Request, body []byte) bool
		tries  int32 // of the blob
		class  fault.Class
		text   string
	}{
		"busy twice": {func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			busy := tries.Add(1) <= 2
			if busy {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return busy
		}, 3, 0, ""},
		"too many, then not": {func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			busy := tries.Add(1) == 1
			if busy {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusTooManyRequests)
			}
			return busy
		}, 2, 0, ""},
		"quota used up": {func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			tries.Add(1)
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}, 1, fault.Unavailable, "toomanyrequests"},
		"no": {func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			tries.Add(1)
			w.WriteHeader(http.StatusForbidden)
			return true
		}, 1, fault.Denied, "access denied"},
		"cut off": {func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if tries.Add(1) == 1 {
				cut(w, body, 100<<10)
			}
			if got := r.Header.Get("Range"); !strings.HasPrefix(got, "bytes=10") {
				t.Errorf("asked for %q, not for the rest", got)
			}
			return false
		}, 2, 0, ""},
		"another range than asked": {func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			switch tries.Add(1) {
			case 1:
				cut(w, body, 100<<10)
			case 2:
				w.Header().Set("Content-Range", "bytes 5-409599/409600")
				w.WriteHeader(http.StatusPartialContent)
				w.Write(body[5:])
				return true
			}
			return false
		}, 3, 0, ""},
		"the right range, of something else": {func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			switch tries.Add(1) {
			case 1:
				cut(w, body, 100<<10)
			case 2:
				for i := range body { // it is a copy
					body[i] ^= 1
				}
				var first, last int
				fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(body)))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(body[first:])
				return true
			}
			return false
		}, 3, 0, ""},
		"no such range": {func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			switch tries.Add(1) {
			case 1:
				cut(w, body, 100<<10)
			case 2:
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return true
			}
			return false
		}, 3, 0, ""},
		"single bytes": {func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if tries.Add(1) > 1 {
				return false
			}
			for i := range body {
				w.Write(body[i : i+1])
				w.(http.Flusher).Flush()
				time.Sleep(5 * time.Millisecond)
				if r.Context().Err() != nil {
					break
				}
			}
			return true
		}, 2, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tries.Store(0)
			g := &registrytest.Registry{Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
				return isBlob(r, blob) && c.tamper(w, r, append([]byte(nil), body...))
			}}
			host := serve(t, g)
			g.Push("img", "latest", img)
			w := newWorld(t)
			w.opt.Stall = 500 * time.Millisecond
			_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/img"}, nil)
			if c.text != "" {
				wantClass(t, err, c.class, c.text)
			} else if err != nil {
				t.Error(err)
			}
			if tries.Load() != c.tries {
				t.Errorf("%d requests, want %d", tries.Load(), c.tries)
			}
		})
	}
}

func TestParseRegistry(t *testing.T) {
	for _, c := range [][2]string{{"", "https://m.lan"}, {"a/b", "https://m.lan"}, {"reg.lan", "m.lan"}, {"reg.lan", "https://reg.lan"}, {"reg.lan:x", "https://m.lan"}} {
		if err := (Registries{}).ParseRegistry(c[0], []string{c[1]}, false); err == nil {
			t.Errorf("%q with mirror %q is taken", c[0], c[1])
		}
	}
	s := &Store{opt: Options{Registries: Registries{}}}
	for _, name := range []string{"docker.io", "reg.lan:5000", "localhost"} {
		if err := s.opt.Registries.ParseRegistry(name, nil, true); err != nil {
			t.Error(err)
		}
	}
	o := s.remoteOptions(ask.RegistryAuth{}, false)
	if strings.Contains(strings.Join(o.Insecure, " "), " docker.io") || len(o.Insecure) != 3 {
		t.Errorf("%v", o.Insecure)
	}
}
