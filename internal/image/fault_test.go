package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestAuth(t *testing.T) {
	user := ask.RegistryAuth{Username: "u", Password: "p"}
	cases := map[string]struct {
		auth registrytest.Auth
		give ask.RegistryAuth
		ok   bool
	}{
		"anonymous":          {registrytest.Auth{}, ask.RegistryAuth{}, true},
		"needless":           {registrytest.Auth{}, user, true},
		"basic":              {registrytest.Auth{Scheme: "basic", User: "u", Password: "p"}, user, true},
		"basic wrong":        {registrytest.Auth{Scheme: "basic", User: "u", Password: "q"}, user, false},
		"basic none":         {registrytest.Auth{Scheme: "basic", User: "u", Password: "q"}, ask.RegistryAuth{}, false},
		"bearer anonymous":   {registrytest.Auth{Scheme: "bearer"}, ask.RegistryAuth{}, true},
		"bearer":             {registrytest.Auth{Scheme: "bearer", User: "u", Password: "p"}, user, true},
		"bearer wrong":       {registrytest.Auth{Scheme: "bearer", User: "u", Password: "q"}, user, false},
		"bearer none":        {registrytest.Auth{Scheme: "bearer", User: "u", Password: "q"}, ask.RegistryAuth{}, false},
		"bearer refresh":     {registrytest.Auth{Scheme: "bearer", Refresh: "r"}, ask.RegistryAuth{IdentityToken: "r"}, true},
		"bearer given token": {registrytest.Auth{Scheme: "bearer", User: "x"}, ask.RegistryAuth{RegistryToken: "a-token"}, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := &registrytest.Registry{Auth: c.auth}
			host := serve(t, g)
			g.Push("img", "latest", registrytest.Gzipped(registrytest.Layer("a", "1")))
			w := newWorld(t)
			_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/img", Auth: c.give}, nil)
			if c.ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantClass(t, err, fault.Denied, "pull access denied for "+host+"/img, repository does not exist or may require 'docker login'")
		})
	}
}

func TestTLS(t *testing.T) {
	g := &registrytest.Registry{Auth: registrytest.Auth{Scheme: "bearer"}}
	g.Push("img", "latest", registrytest.Gzipped(registrytest.Layer("a", "1")))
	srv := httptest.NewTLSServer(g)
	defer srv.Close()
	newWorld(t).pull(t, strings.TrimPrefix(srv.URL, "https://")+"/img")
}

// A registry elsewhere gets no plain http and no unverified certificate,
// unless it is listed.
func TestInsecure(t *testing.T) {
	addr := otherAddress(t)
	g := &registrytest.Registry{}
	g.Push("img", "latest", registrytest.Gzipped(registrytest.Layer("a", "1")))
	for _, secure := range []bool{false, true} {
		l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewUnstartedServer(g)
		srv.Listener = l
		if secure {
			srv.StartTLS()
		} else {
			srv.Start()
		}
		defer srv.Close()
		name := l.Addr().String() + "/img"
		w := newWorld(t)
		w.unchanged(t, func() {
			_, err = w.Pull(context.Background(), ask.PullImage{Name: name}, nil)
			wantClass(t, err, fault.Unavailable, "")
			if fault.HintOf(err) == "" {
				t.Errorf("no hint: %v", err)
			}
		})
		if _, err = w.Pull(context.Background(), ask.PullImage{Name: name, PlainTLS: true}, nil); err != nil {
			t.Error(err)
		}
		w = newWorld(t)
		w.opt.Insecure = []string{addr + "/32"}
		w.pull(t, name)
		w = newWorld(t)
		w.opt.Insecure = []string{l.Addr().String()}
		w.pull(t, name)
	}
}

// otherAddress is an IPv4 address of this machine that is not loopback.
func otherAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("kernel: no network but loopback")
	return ""
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return string(b)
}

// isBlob reports whether the request is for the blob of that content.
func isBlob(r *http.Request, blob []byte) bool {
	return strings.HasSuffix(r.URL.Path, "/blobs/"+digest.FromBytes(blob).String())
}

func TestRegistryFaults(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("a", "1"), registrytest.Layer("b", random(200<<10)))
	big := img.Blobs[1]
	_, manifest, _ := img.Files()
	lying := img
	lying.Tars = [][]byte{img.Tars[0], registrytest.Layer("b", "another")}
	cut := registrytest.Image{Tars: img.Tars, Blobs: [][]byte{img.Blobs[0], big[:len(big)-100]}}
	notTar := registrytest.Gzipped([]byte(strings.Repeat("no tar ", 1000)))
	few := img
	few.Tars = img.Tars[:1]
	cases := map[string]struct {
		img    registrytest.Image
		tamper func(w http.ResponseWriter, r *http.Request, body []byte) bool
		class  fault.Class
		text   string
	}{
		"wrong bytes": {img, func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !isBlob(r, big) {
				return false
			}
			w.Write(append(bytes.Clone(body[:len(body)-1]), body[len(body)-1]^1))
			return true
		}, fault.Corrupt, "another digest"},
		"wrong manifest": {img, func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !bytes.Equal(body, manifest) {
				return false
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
			w.Write(bytes.Replace(body, []byte("schema"), []byte("SCHEMA"), 1))
			return true
		}, fault.Corrupt, "digest"},
		"always cut off": {img, func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !isBlob(r, big) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.Write(body[:1000])
			return true
		}, fault.Unavailable, "EOF"},
		"wrong length": {img, func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !isBlob(r, big) {
				return false
			}
			w.Write(body[:1000])
			return true
		}, fault.Corrupt, "mismatch"},
		"too long": {img, func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !isBlob(r, big) {
				return false
			}
			w.Write(body)
			w.(http.Flusher).Flush() // without a length
			w.Write(body)
			return true
		}, fault.Corrupt, "more than it said"},
		"blob gone": {img, func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !isBlob(r, big) {
				return false
			}
			http.NotFound(w, r)
			return true
		}, fault.NotFound, "not found"},
		"huge manifest": {img, func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if !bytes.Equal(body, manifest) {
				return false
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Content-Length", fmt.Sprint(8<<20))
			w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
			w.Write(bytes.Repeat([]byte(" "), 8<<20))
			return true
		}, fault.Exhausted, "4 MiB"},
		"lying diff id":   {img: lying, class: fault.Corrupt, text: "its content has digest"},
		"cut off gzip":    {img: cut, class: fault.Corrupt, text: "cut off"},
		"too few diffs":   {img: few, class: fault.Corrupt, text: "it names 1 layers, the manifest 2"},
		"diff id of none": {img: notTar, class: fault.Corrupt, text: "no tar"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := &registrytest.Registry{Tamper: c.tamper}
			host := serve(t, g)
			g.Push("img", "latest", c.img)
			w := newWorld(t)
			w.layers.fail = func(string) error {
				if name == "diff id of none" { // what unpack says
					return fault.New(fault.Corrupt, "unpack", "layer", "no tar", "")
				}
				return nil
			}
			w.unchanged(t, func() {
				_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/img"}, nil)
				wantClass(t, err, c.class, c.text)
			})
		})
	}
}

func TestMissing(t *testing.T) {
	g := &registrytest.Registry{}
	host := serve(t, g)
	w := newWorld(t)
	_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/no:tag"}, nil)
	wantClass(t, err, fault.NotFound, "manifest for "+host+"/no:tag not found: manifest unknown: manifest unknown")
	_, err = w.Pull(context.Background(), ask.PullImage{Name: host + "/no", All: true}, nil)
	wantClass(t, err, fault.NotFound, "repository "+host+"/no not found")
	_, err = w.Pull(context.Background(), ask.PullImage{Name: "127.0.0.1:1/no"}, nil)
	wantClass(t, err, fault.Unavailable, "refused")
	_, err = w.Pull(context.Background(), ask.PullImage{Name: "Upper/Case"}, nil)
	wantClass(t, err, fault.Invalid, "must be lowercase")
	_, err = w.Pull(context.Background(), ask.PullImage{Name: "scratch"}, nil)
	wantClass(t, err, fault.Denied, "'scratch' is a reserved name")
	_, err = w.Pull(context.Background(), ask.PullImage{Name: host + "/x", Platform: "a/b/c/d"}, nil)
	if err == nil {
		t.Error("took a platform of four parts")
	}
}

// A download that breaks off, or stalls, goes on where it was.
func TestResume(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		for _, how := range []string{"broken", "stalled"} {
			t.Run(fmt.Sprint(how, " ranges ", ranges), func(t *testing.T) {
				img := registrytest.Gzipped(registrytest.Layer("b", random(400<<10)))
				var mu sync.Mutex
				tries := 0
				g := &registrytest.Registry{NoRanges: !ranges}
				g.Tamper = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
					mu.Lock()
					defer mu.Unlock()
					if !isBlob(r, img.Blobs[0]) {
						return false
					}
					if tries++; tries > 1 {
						return false
					}
					if ranges {
						w.Header().Set("Accept-Ranges", "bytes")
					}
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
					w.Write(body[:len(body)/2])
					w.(http.Flusher).Flush()
					if how == "stalled" {
						<-r.Context().Done()
					}
					return true
				}
				host := serve(t, g)
				g.Push("img", "latest", img)
				w := newWorld(t)
				w.opt.Stall = 300 * time.Millisecond
				w.pull(t, host+"/img")
			})
		}
	}
}

func TestCancel(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("b", random(400<<10)))
	ctx, cancel := context.WithCancel(context.Background())
	g := &registrytest.Registry{Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if !isBlob(r, img.Blobs[0]) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body[:1000])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
		return true
	}}
	host := serve(t, g)
	g.Push("img", "latest", img)
	w := newWorld(t)
	w.unchanged(t, func() {
		_, err := w.Pull(ctx, ask.PullImage{Name: host + "/img"}, nil)
		wantClass(t, err, fault.Canceled, "")
	})
}

// Fifty clients who want the same image, and others that share its layers,
// fetch and unpack each layer once.
func TestPullTogether(t *testing.T) {
	tars := [][]byte{registrytest.Layer("a", random(50000)), registrytest.Layer("b", random(50000)), registrytest.Layer("c", random(50000))}
	one, two := registrytest.Gzipped(tars...), registrytest.Gzipped(tars[2], tars[0])
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("one", "latest", one)
	g.Push("two", "latest", two)
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			_, err := w.Pull(context.Background(), ask.PullImage{Name: host + []string{"/one", "/two"}[i%2]}, nil)
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, b := range one.Blobs {
		if n := g.Asked(digest.FromBytes(b).String()); n != 1 {
			t.Errorf("blob %d was fetched %d times", i, n)
		}
		if n := w.layers.unpacked[digest.FromBytes(tars[i]).String()]; n != 1 {
			t.Errorf("layer %d was unpacked %d times", i, n)
		}
	}
}

// Layers of one image are unpacked at the same time: each waits here for
// another one.
func TestLayersAtOnce(t *testing.T) {
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("one", "latest", registrytest.Gzipped(registrytest.Layer("a", "1"), registrytest.Layer("b", "2")))
	w := newWorld(t)
	meet := make(chan bool)
	w.layers.inside = func() {
		select {
		case meet <- true:
		case <-meet:
		case <-time.After(20 * time.Second):
			t.Error("alone")
		}
	}
	w.pull(t, host+"/one")
}

// Pulling and removing against each other ends in a store that is whole.
func TestPullAgainstRemove(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("a", "1"), registrytest.Layer("b", "2"))
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("one", "latest", img)
	w := newWorld(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 15 {
				if _, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/one"}, nil); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 40 {
				_, err := w.Remove(host+"/one", false, nobody)
				if err != nil && !fault.Is(err, fault.NotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := w.pull(t, host+"/one")
	for _, l := range got.Layers {
		if !w.layers.Has(l.DiffID) || !w.blobs.has(l.Digest, l.Bytes) {
			t.Errorf("%+v is not whole", l)
		}
	}
	w.unchanged(t, func() {})
	if _, err := w.Remove(got.ID, true, nobody); err != nil {
		t.Fatal(err)
	}
	if len(w.index.all) != 0 || len(w.layers.tars) != 0 {
		t.Errorf("left: %s", w.state(t))
	}
}

func nobody(string) []Use { return nil }

func TestAllTags(t *testing.T) {
	g := &registrytest.Registry{}
	host := serve(t, g)
	for i := range 3 {
		g.Push("one", fmt.Sprint("v", i), registrytest.Gzipped(registrytest.Layer("a", fmt.Sprint(i))))
	}
	w := newWorld(t)
	if _, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/one", All: true}, nil); err != nil || len(w.List()) != 3 {
		t.Errorf("%v %v", w.List(), err)
	}
}

// A tag that moves leaves the old image without it.
func TestMovedTag(t *testing.T) {
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("one", "latest", registrytest.Gzipped(registrytest.Layer("a", "old")))
	w := newWorld(t)
	old := w.pull(t, host+"/one")
	g.Push("one", "latest", registrytest.Gzipped(registrytest.Layer("a", "new")))
	w.told = nil
	now := w.pull(t, host+"/one")
	old, err := w.Resolve(old.ID)
	if err != nil || len(old.Names) != 0 || len(old.Digests) != 1 || now.ID == old.ID {
		t.Errorf("%+v %v", old, err)
	}
	if got := w.words(""); !strings.Contains(got, "Downloaded newer image") {
		t.Error(got)
	}
}

// The same config with layers compressed otherwise: same image, other blobs.
func TestRecompressed(t *testing.T) {
	tar := registrytest.Layer("a", strings.Repeat("text ", 1000))
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("one", "latest", registrytest.Gzipped(tar))
	w := newWorld(t)
	a := w.pull(t, host+"/one")
	g.Push("one", "latest", registrytest.Image{Tars: [][]byte{tar}, Blobs: [][]byte{registrytest.Zstd(tar)}, MediaTypes: []string{ocispec.MediaTypeImageLayerZstd}})
	b := w.pull(t, host+"/one")
	if a.ID != b.ID || a.Manifest == b.Manifest || w.layers.unpacked[b.Layers[0].DiffID] != 1 {
		t.Errorf("%+v\n%+v", a, b)
	}
	if w.blobs.has(a.Layers[0].Digest, a.Layers[0].Bytes) || !w.blobs.has(b.Layers[0].Digest, b.Layers[0].Bytes) {
		t.Error("the old blob is there, or the new one is not")
	}
	// another image that claims the layer with content of its own
	forged := registrytest.Image{Tars: [][]byte{tar}, Blobs: [][]byte{registrytest.Gzip(registrytest.Layer("evil", ""))}}
	g.Push("forged", "latest", forged)
	w.unchanged(t, func() {
		_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/forged"}, nil)
		wantClass(t, err, fault.Corrupt, "its content has digest")
	})
}

// A blob that rotted on disk, or vanished, is fetched again.
func TestDamagedStore(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("a", "1"))
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("one", "latest", img)
	w := newWorld(t)
	got := w.pull(t, host+"/one")
	path := filepath.Join(w.dir, blobPath(got.Layers[0].Digest))
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), len(img.Blobs[0])), 0o600); err != nil {
		t.Fatal(err)
	}
	w.layers.Remove(got.Layers[0].DiffID)
	w.pull(t, host+"/one")
	if raw, _ := os.ReadFile(path); !bytes.Equal(raw, img.Blobs[0]) || !w.layers.Has(got.Layers[0].DiffID) {
		t.Error("not repaired")
	}
	os.Remove(path)
	os.Remove(filepath.Join(w.dir, blobPath(got.ID)))
	w.pull(t, host+"/one")
	if raw, _ := os.ReadFile(path); !bytes.Equal(raw, img.Blobs[0]) || !w.blobs.has(got.ID, 1) && w.blobs.small(got.ID, maxConfig) == nil {
		t.Error("not repaired")
	}
}

// A crash at any write to the index leaves the former state, once the store
// has been opened again.
func TestCrash(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("a", "1"), registrytest.Layer("b", "2"))
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("one", "latest", img)
	for at := range 6 {
		w := newWorld(t)
		before := w.state(t)
		n, dead := 0, errors.New("killed")
		w.index.fail = func(map[string]any) error {
			if n++; n > at {
				return dead
			}
			return nil
		}
		_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/one"}, nil)
		w.index.fail = nil
		if err == nil {
			continue
		}
		if !errors.Is(err, dead) {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.dir, ingestDir, "left"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.dir, blobDir, strings.Repeat("0", 64)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		w.reopen(t)
		if after := w.state(t); after != before {
			t.Errorf("killed at write %d:\n%s", at, after)
		}
		w.pull(t, host+"/one")
	}
}

// A full disk: an error, the former state, and everything works again when
// there is space. The file system is a tmpfs mounted nowhere.
func TestFullDisk(t *testing.T) {
	small := registrytest.Gzipped(registrytest.Layer("a", "1"))
	big := registrytest.Gzipped(registrytest.Layer("b", random(3<<20)))
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("small", "latest", small)
	g.Push("big", "latest", big)
	w := newWorld(t)
	w.dir = mnttest.SmallFS(t, "2m")
	w.reopen(t)
	w.pull(t, host+"/small")
	w.unchanged(t, func() {
		_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/big"}, nil)
		wantClass(t, err, fault.Exhausted, "no space left")
	})
	w.unchanged(t, func() {
		_, err := w.Load(context.Background(), ask.LoadImages{}, bytes.NewReader(big.DockerArchive("x:1")), nil)
		wantClass(t, err, fault.Exhausted, "no space left")
	})
	w.unchanged(t, func() {
		_, err := w.Import(context.Background(), ask.ImportImage{Name: "x"}, bytes.NewReader(big.Tars[0]))
		wantClass(t, err, fault.Exhausted, "no space left")
	})
	if _, err := w.Remove(host+"/small", false, nobody); err != nil {
		t.Error(err)
	}
}
