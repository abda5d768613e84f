package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"

	"github.com/opencontainers/go-digest"
)

// loaded is a world with an image that no registry has.
func loaded(t *testing.T, img registrytest.Image, names ...string) *world {
	t.Helper()
	w := newWorld(t)
	if _, err := w.Load(context.Background(), ask.LoadImages{}, bytes.NewReader(img.OCIArchive(names[0])), nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range names[1:] {
		if err := w.Tag(names[0], n); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// same checks that the registry gives what the store has.
func same(t *testing.T, w *world, name string) {
	t.Helper()
	want, err := w.Resolve(name)
	if err != nil {
		t.Fatal(err)
	}
	other := newWorld(t)
	if got := other.pull(t, name); got.ID != want.ID || got.Manifest != want.Manifest {
		t.Errorf("pushed %s with manifest %s, pulled %s with %s", want.ID, want.Manifest, got.ID, got.Manifest)
	}
}

func TestPush(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("a", "1"), registrytest.Layer("b", random(300<<10)))
	g := &registrytest.Registry{}
	host := serve(t, g)
	w := loaded(t, img, host+"/lib/img:1", host+"/lib/img:2", host+"/other:x", host+"/lib/img2:1")
	done, err := w.Push(context.Background(), ask.PushImage{Name: host + "/lib/img:1"}, w.tell)
	if err != nil {
		t.Fatal(err)
	}
	_, manifest, _ := img.Files()
	if len(done) != 1 || done[0].Tag != "1" || done[0].Digest != digestOf(manifest) || done[0].Size != int64(len(manifest)) {
		t.Errorf("%+v", done)
	}
	same(t, w, host+"/lib/img:1")
	if w.told[0].Status != "The push refers to repository ["+host+"/lib/img]" {
		t.Errorf("%+v", w.told[0])
	}
	if got, want := w.words(""), fmt.Sprintf("1: digest: %s size: %d", done[0].Digest, done[0].Size); !strings.HasSuffix(got, want) {
		t.Errorf("said %q, want %q", got, want)
	}
	bar := digest.FromBytes(img.Blobs[1]).Encoded()[:12]
	if got := w.words(bar); got != "Preparing, Pushing, Pushed" {
		t.Error(got)
	}
	if got := w.List()[0].Digests; len(got) != 1 || got[0] != host+"/lib/img@"+done[0].Digest {
		t.Errorf("known as %v", got)
	}

	w.told = nil
	posts := g.Sent("POST", "")
	if done, err = w.Push(context.Background(), ask.PushImage{Name: host + "/lib/img", All: true}, w.tell); err != nil || len(done) != 2 {
		t.Fatal(done, err)
	}
	if got := w.words(bar); got != "Preparing, Layer already exists, Preparing, Layer already exists" || g.Sent("POST", "") != posts {
		t.Errorf("%q, %d uploads", got, g.Sent("POST", "")-posts)
	}
	same(t, w, host+"/lib/img:2")

	w.told = nil
	if _, err := w.Push(context.Background(), ask.PushImage{Name: host + "/other:x"}, w.tell); err != nil {
		t.Fatal(err)
	}
	if got := w.words(bar); got != "Preparing, Mounted from "+host+"/lib/img" || g.Sent("PUT", "/blobs/uploads/") != 3 {
		t.Errorf("%q, %d blobs uploaded", got, g.Sent("PUT", "/blobs/uploads/"))
	}
	same(t, w, host+"/other:x")
	before := w.state(t)
	w.reopen(t)
	if w.state(t) != before {
		t.Error("a restart changed what is known")
	}
}

// A stored platform is pushed by its own manifest.
func TestPushPlatform(t *testing.T) {
	g := &registrytest.Registry{}
	host := serve(t, g)
	w := newWorld(t)
	if _, err := w.loadFor(multi("docker.io/library/all:1", true), "linux/amd64", "linux/arm64"); err != nil {
		t.Fatal(err)
	}
	if err := w.Tag("all:1", host+"/all:1"); err != nil {
		t.Fatal(err)
	}
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		want, err := w.ResolveFor("all:1", platform)
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.Push(context.Background(), ask.PushImage{Name: host + "/all:1", Platform: platform}, nil)
		if err != nil || len(got) != 1 || got[0].Digest != want.Manifest {
			t.Errorf("%s: pushed %+v, %v; its manifest is %s", platform, got, err, want.Manifest)
		}
	}
	_, err := w.Push(context.Background(), ask.PushImage{Name: host + "/all:1", Platform: "linux/s390x"}, nil)
	wantClass(t, err, fault.NotFound, "does not provide the specified platform")
}

func TestPushRefused(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("a", "1"))
	g := &registrytest.Registry{Auth: registrytest.Auth{Scheme: "bearer", User: "u", Password: "p"}}
	host := serve(t, g)
	w := loaded(t, img, host+"/img:1")
	user := ask.RegistryAuth{Username: "u", Password: "p"}
	for _, c := range []struct {
		ask   ask.PushImage
		class fault.Class
		text  string
	}{
		{ask.PushImage{Name: host + "/img:2", Auth: user}, fault.NotFound, "An image does not exist locally with the tag: " + host + "/img"},
		{ask.PushImage{Name: host + "/img:1", Platform: "linux/arm64", Auth: user}, fault.NotFound, "does not match the specified platform: wanted linux/arm64, actual: linux/amd64"},
		{ask.PushImage{Name: host + "/img:1", Platform: "a/b/c/d", Auth: user}, fault.Invalid, "cannot use platform a/b/c/d"},
		{ask.PushImage{Name: host + "/none", All: true, Auth: user}, fault.NotFound, "An image does not exist locally with the tag: " + host + "/none"},
		{ask.PushImage{Name: host + "/img@" + digestOf(nil), Auth: user}, fault.Invalid, "cannot push a digest reference"},
		{ask.PushImage{Name: host + "/img:1"}, fault.Denied, ""},
		{ask.PushImage{Name: host + "/img:1", Auth: ask.RegistryAuth{Username: "u", Password: "q"}}, fault.Denied, "incorrect username or password"},
	} {
		w.unchanged(t, func() {
			_, err := w.Push(context.Background(), c.ask, nil)
			wantClass(t, err, c.class, c.text)
		})
	}
	if _, err := w.Push(context.Background(), ask.PushImage{Name: host + "/img:1", Auth: user}, nil); err != nil {
		t.Error(err)
	}
}

// An upload that breaks off goes on where it was, or begins anew where that is
// not to be had.
func TestPushFaults(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("b", random(900<<10)))
	size := int64(len(img.Blobs[0]))
	var tries atomic.Int32
	first := func() bool { return tries.Add(1) == 1 }
	for name, c := range map[string]struct {
		pushing registrytest.Pushing
		tamper  func(w http.ResponseWriter, r *http.Request) bool
		class   fault.Class
		text    string
	}{
		"busy": {tamper: func(w http.ResponseWriter, r *http.Request) bool {
			if r.ContentLength == size && first() {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
			return false
		}},
		"broken": {tamper: func(w http.ResponseWriter, r *http.Request) bool {
			if r.ContentLength == size && first() {
				r.Body = struct {
					io.Reader
					io.Closer
				}{io.MultiReader(io.LimitReader(r.Body, 300<<10), broken{}), r.Body}
			}
			return false
		}},
		"broken and forgotten": {pushing: registrytest.Pushing{Forgets: true}, tamper: func(w http.ResponseWriter, r *http.Request) bool {
			if r.ContentLength == size && first() {
				io.CopyN(io.Discard, r.Body, 300<<10)
				panic(http.ErrAbortHandler)
			}
			return false
		}},
		"stalled": {tamper: func(w http.ResponseWriter, r *http.Request) bool {
			if r.ContentLength == size && first() {
				time.Sleep(300 * time.Millisecond)
				panic(http.ErrAbortHandler)
			}
			return false
		}},
		"no mounts and no chunks": {pushing: registrytest.Pushing{NoMount: true, NoChunks: true}},
		"quota": {tamper: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				w.WriteHeader(http.StatusForbidden)
			}
			return r.Method == http.MethodPut
		}, class: fault.Denied, text: "denied: requested access to the resource is denied"},
		"upload elsewhere": {tamper: func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "http://elsewhere.example/upload")
			w.WriteHeader(http.StatusAccepted)
			return true
		}, class: fault.Unavailable, text: "sends the upload elsewhere"},
		"another digest stored": {tamper: func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Docker-Content-Digest", digestOf(nil))
			w.WriteHeader(http.StatusCreated)
			return true
		}, class: fault.Corrupt, text: "the registry stored"},
	} {
		t.Run(name, func(t *testing.T) {
			tries.Store(0)
			c.pushing.Tamper = c.tamper
			g := &registrytest.Registry{Pushing: c.pushing}
			host := serve(t, g)
			w := loaded(t, img, host+"/img:1")
			w.opt.Stall = 2 * time.Second
			_, err := w.Push(context.Background(), ask.PushImage{Name: host + "/img:1"}, nil)
			if c.text != "" {
				wantClass(t, err, c.class, c.text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			same(t, w, host+"/img:1")
		})
	}
}

// broken is a connection that breaks.
type broken struct{}

func (broken) Read([]byte) (int, error) { panic(http.ErrAbortHandler) }

func TestPushCanceled(t *testing.T) {
	img := registrytest.Gzipped(registrytest.Layer("b", random(900<<10)))
	ctx, cancel := context.WithCancel(context.Background())
	g := &registrytest.Registry{}
	g.Pushing.Tamper = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			cancel()
		}
		return false
	}
	host := serve(t, g)
	w := loaded(t, img, host+"/img:1")
	w.unchanged(t, func() {
		_, err := w.Push(ctx, ask.PushImage{Name: host + "/img:1"}, nil)
		wantClass(t, err, fault.Canceled, "")
	})
}
