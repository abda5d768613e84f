package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
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

// halting sends half of every large blob, and the rest when more is closed.
func halting(more <-chan struct{}) *registrytest.Registry {
	return &registrytest.Registry{Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if len(body) < 1<<20 {
			return false
		}
		w.WriteHeader(http.StatusOK)
		w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		select {
		case <-more:
			w.Write(body[len(body)/2:])
		case <-r.Context().Done():
		}
		return true
	}}
}

func largeLayer() []byte {
	body := make([]byte, 4<<20)
	rand.Read(body)
	return registrytest.Layer("big", string(body))
}

// A layer is unpacked while its blob still comes.
func TestUnpackWhileItComes(t *testing.T) {
	more := make(chan struct{})
	g := halting(more)
	host := serve(t, g)
	for name, img := range map[string]registrytest.Image{"gzip": registrytest.Gzipped(largeLayer()), "plain": registrytest.Plain(largeLayer())} {
		g.Push(name, "latest", img)
	}
	w := newWorld(t)
	w.layers.inside = sync.OnceFunc(func() { close(more) }) // the rest comes only to who unpacks the first half
	img := w.pull(t, host+"/gzip")
	if got := w.layers.tars[img.Layers[0].DiffID]; len(got) < 4<<20 {
		t.Errorf("%d bytes were unpacked", len(got))
	}
	if got := w.words(barOf(digest.Digest(img.Layers[0].Digest))); !strings.HasSuffix(got, "Downloading, Verifying Checksum, Download complete, Extracting, Pull complete") {
		t.Error(got)
	}
	w.pull(t, host+"/plain")
}

// refusing has no room for any layer.
type refusing struct{ *memLayers }

func (refusing) Unpack(context.Context, string, io.Reader) (record.Layer, error) {
	return record.Layer{}, fault.Say(fault.Exhausted, "no room")
}

// When a layer cannot be unpacked, nobody waits for the rest of its blob.
func TestUnpackFailsWhileItComes(t *testing.T) {
	g := halting(nil)
	host := serve(t, g)
	g.Push("img", "latest", registrytest.Gzipped(largeLayer()))
	w := newWorld(t)
	w.Close()
	s, err := Open(w.dir, w.index, refusing{w.layers}, Options{Platform: "linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	w.Store = s
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	w.unchanged(t, func() {
		_, err = w.Pull(ctx, ask.PullImage{Name: host + "/img"}, nil)
		wantClass(t, err, fault.Exhausted, "no room")
	})
}

// A layer that is unpacked is none when its blob cannot be kept.
func TestBlobLostAfterUnpack(t *testing.T) {
	more := make(chan struct{})
	g := halting(more)
	host := serve(t, g)
	g.Push("img", "latest", registrytest.Gzipped(largeLayer()))
	w := newWorld(t)
	w.layers.inside = sync.OnceFunc(func() {
		names, _ := filepath.Glob(w.dir + "/ingest/*")
		for _, name := range names {
			os.Remove(name)
		}
		close(more)
	})
	w.unchanged(t, func() {
		_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/img"}, nil)
		wantClass(t, err, fault.NotFound, "name blob")
	})
}

// A download that has to begin anew takes nothing back from who reads it.
func TestBeginsAnewWhileRead(t *testing.T) {
	cut := 0
	g := &registrytest.Registry{NoRanges: true}
	g.Tamper = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if len(body) < 1<<20 || cut == 2 {
			return false
		}
		cut++
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body[:cut<<20])
		panic(http.ErrAbortHandler)
	}
	host := serve(t, g)
	layer := largeLayer()
	g.Push("img", "latest", registrytest.Gzipped(layer))
	w := newWorld(t)
	img := w.pull(t, host+"/img")
	if cut != 2 || !bytes.Equal(w.layers.tars[img.Layers[0].DiffID], layer) {
		t.Errorf("cut %d times, another layer", cut)
	}
}
