package image

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// A root file system is taken from a URL; what is no such, or comes badly,
// changes nothing, and a password is told to nobody.
func TestImportURL(t *testing.T) {
	layer := registrytest.Layer("a", random(5000))
	mux := http.NewServeMux()
	mux.HandleFunc("/rootfs.tar.xz", func(w http.ResponseWriter, r *http.Request) { w.Write(xzOf(layer, dictionary4K)) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		w.Write(layer[:3000])
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/rootfs.tar.xz", http.StatusFound) })
	mux.HandleFunc("/circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/circle", http.StatusFound) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/empty", func(w http.ResponseWriter, r *http.Request) {})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	from := func(path string) ask.ImportImage { return ask.ImportImage{Name: "x:1", Source: srv.URL + path} }
	for _, path := range []string{"/rootfs.tar.xz", "/moved"} {
		w := newWorld(t)
		want := from(path)
		want.Source = strings.Replace(want.Source, "http://", "http://user:secret@", 1)
		img, err := w.Import(context.Background(), want, nil)
		if err != nil || img.Comment != "Imported from "+srv.URL+path || !bytes.Equal(w.layers.tars[img.Layers[0].DiffID], layer) {
			t.Errorf("%s: %+v %v", path, img, err)
		}
	}
	w := newWorld(t)
	w.unchanged(t, func() {
		for path, class := range map[string]fault.Class{"/nowhere": fault.Unavailable, "/cut": fault.Corrupt, "/circle": fault.Unavailable, "/file": fault.Unavailable, "/empty": fault.Invalid} {
			if _, err := w.Import(context.Background(), from(path), nil); err == nil || fault.ClassOf(err) != class {
				t.Errorf("%s: %v %v", path, fault.ClassOf(err), err)
			}
		}
		for _, raw := range []string{"file:///etc/passwd", "ftp://localhost/x", "http://", "://", "http:///x"} {
			if _, err := w.Import(context.Background(), ask.ImportImage{Source: raw}, nil); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", raw, err)
			}
		}
		_, err := w.Import(context.Background(), ask.ImportImage{Source: "http://user:secret@127.0.0.1:1/x"}, nil)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := w.Import(ctx, from("/moved"), nil); !fault.Is(err, fault.Canceled) {
			t.Errorf("%v", err)
		}
	})
}
