package badinput

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"fief/internal/image/registrytest"
	"fief/internal/testenv"
)

// peak is the most memory that a process has had, in bytes (proc_pid_status(5), VmHWM).
func peak(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// longLayer is a layer of one file, of size bytes, as `zstd --long` makes it of a
// pipe: with a window of that size, all of which its unpacking fills.
func longLayer(t *testing.T, name string, size, window int) (plain, packed []byte) {
	t.Helper()
	var b, z bytes.Buffer
	w := tar.NewWriter(&b)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)}))
	_, err := w.Write(bytes.Repeat([]byte(name), size/len(name)+1)[:size])
	must(err)
	must(w.Close())
	pack, err := zstd.NewWriter(&z, zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	must(err)
	_, err = io.Copy(pack, struct{ io.Reader }{bytes.NewReader(b.Bytes())})
	must(err)
	must(pack.Close())
	return b.Bytes(), z.Bytes()
}

// TestLongWindows: what three layers of `zstd --long` ask for at once is not
// given at once; a layer that asks for more than the limit is refused.
func TestLongWindows(t *testing.T) {
	d := testenv.Start(t)
	pushed := &registrytest.Registry{}
	registry := httptest.NewServer(pushed)
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "http://")
	img := registrytest.Image{}
	for i := range 3 {
		plain, packed := longLayer(t, fmt.Sprint("f", i), 140<<20, 128<<20)
		img.Tars, img.Blobs = append(img.Tars, plain), append(img.Blobs, packed)
		img.MediaTypes = append(img.MediaTypes, ocispec.MediaTypeImageLayerZstd)
	}
	pushed.Push("long", "1", img)
	d.Must(t, "pull", host+"/long:1")
	most := peak(t, d.PID())
	t.Logf("peak %.1f MB", float64(most)/1e6)
	if most > 165<<20 { // the windows of all layers together are 128 MiB, the rest is the daemon
		t.Errorf("fiefd needed %d MiB", most>>20)
	}
	before := state(t, d)
	plain, packed := longLayer(t, "f", 1<<20, 256<<20)
	img = registrytest.Image{Tars: [][]byte{plain}, Blobs: [][]byte{packed}, MediaTypes: []string{ocispec.MediaTypeImageLayerZstd}}
	pushed.Push("longer", "1", img)
	if _, errs, code := d.Fief(t, "pull", host+"/longer:1"); code == 0 || !strings.Contains(errs, "window") || !strings.Contains(errs, "--long=27") {
		t.Errorf("%d %s", code, errs)
	}
	if after := state(t, d); after != before {
		t.Errorf("%s\nbecame\n%s", before, after)
	}
}
