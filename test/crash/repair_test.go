package crash

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/testenv"
	"fief/internal/words/record"
)

// pulled is a daemon with a busybox that came from a registry.
func pulled(t *testing.T) (d *testenv.Daemon, g *registrytest.Registry, img registrytest.Image, name string) {
	t.Helper()
	d = testenv.Start(t)
	g = &registrytest.Registry{}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	img = registrytest.Gzipped(testenv.BusyboxTar(t))
	g.Push("busybox", "1", img)
	name = strings.TrimPrefix(server.URL, "http://") + "/busybox:1"
	d.Must(t, "pull", "-q", name)
	return d, g, img, name
}

func sumOf(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// refused wants a command to fail because of damage, with a way out.
func refused(t *testing.T, d *testenv.Daemon, args ...string) {
	t.Helper()
	out, errs, code := d.Fief(t, args...)
	if code == 0 || !strings.Contains(errs, "is damaged") || !strings.Contains(errs, "fief system verify --repair") {
		t.Errorf("%v: exit %d, %s%s", args, code, out, errs)
	}
}

// An image with a damaged layer is not run once that is known, by no verb and no
// later daemon, and runs again when the layer was made anew. What runs on the
// damaged one goes on.
func TestRepairedLayer(t *testing.T) {
	d, _, _, name := pulled(t)
	fs, _ := filepath.Glob(d.Dir + "/data/layers/*/fs")
	index := fs[0] + "/var/www/index.html"
	d.Must(t, "create", "--name", "asleep", name, "cat", "/var/www/index.html")
	d.Must(t, "run", "-d", "--name", "runs", name, "sleep", "1000")
	if err := overwrite(index, "hellO\n")(); err != nil {
		t.Fatal(err)
	}
	out, _, code := d.Fief(t, "system", "verify", "-q")
	if code != 1 || !strings.Contains(out, "to repair it: fief system verify --repair") {
		t.Errorf("exit %d, %s", code, out)
	}
	d.Kill(t)
	d.Up(t)
	refused(t, d, "run", "--rm", name, "true")
	refused(t, d, "create", name, "true")
	refused(t, d, "start", "asleep")
	var v record.Verification
	if err := json.Unmarshal([]byte(d.Must(t, "system", "verify", "--repair", "--format", "json")), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Problems) != 1 || !v.Problems[0].Repaired || v.Problems[0].Images[0] != name {
		t.Errorf("%+v", v)
	}
	if out := d.Must(t, "system", "verify", "-q"); !strings.HasSuffix(out, "all as they must be") {
		t.Error(out)
	}
	for _, args := range [][]string{{"run", "--rm", name, "cat", "/var/www/index.html"}, {"start", "-a", "asleep"}} {
		if out := d.Must(t, args...); out != "hello" {
			t.Errorf("%v says %q", args, out)
		}
	}
	if out := d.Must(t, "exec", "runs", "cat", "/etc/passwd"); !strings.HasPrefix(out, "root:") {
		t.Errorf("what runs on the old layer lost its files: %q", out)
	}
	d.Must(t, "rm", "-f", "runs")
	d.Kill(t)
	d.Up(t)
	k := &killable{Daemon: d}
	k.empty(t, "replaced", 0)
}

// A damaged blob is fetched again by the next pull, and so is one without which a
// damaged layer cannot be made anew: nothing runs until then.
func TestPullBringsWhatIsDamaged(t *testing.T) {
	d, g, img, name := pulled(t)
	config, manifest, _ := img.Files()
	for _, b := range [][]byte{img.Blobs[0], config, manifest} {
		sum := sumOf(b)
		if err := overwrite(d.Dir+"/data/blobs/sha256/"+sum, string(b[:len(b)-1])+"~")(); err != nil {
			t.Fatal(err)
		}
		out, _, code := d.Fief(t, "system", "verify", "-q", "--repair")
		if code != 1 || !strings.Contains(out, "to repair it: fief pull "+name) {
			t.Errorf("exit %d, %s", code, out)
		}
		if out, errs, code := d.Fief(t, "run", "--rm", name, "echo", "runs"); code != 0 || out != "runs\n" || !strings.Contains(errs, "is damaged") {
			t.Errorf("with a damaged blob a run says %d %q %q", code, out, errs)
		}
		d.Must(t, "pull", "-q", name)
		if out := d.Must(t, "system", "verify", "-q"); !strings.HasSuffix(out, "all as they must be") {
			t.Error(out)
		}
	}
	if n := g.Asked(sumOf(img.Blobs[0])); n != 2 {
		t.Errorf("the layer was asked for %d times, not twice", n)
	}
	layers, _ := filepath.Glob(d.Dir + "/data/layers/*")
	blob := d.Dir + "/data/blobs/sha256/" + sumOf(img.Blobs[0])
	if err := first(os.RemoveAll(layers[0]), os.Truncate(blob, 100)); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := d.Fief(t, "run", "--rm", name, "true"); code == 0 || !strings.Contains(errs, "fief system verify --repair") {
		t.Errorf("without its layer a run says %d %q %q", code, out, errs)
	}
	if out, _, code := d.Fief(t, "system", "verify", "-q", "--repair"); code != 1 || strings.Count(out, "to repair it: fief pull "+name) != 2 {
		t.Errorf("exit %d, %s", code, out)
	}
	refused(t, d, "run", "--rm", name, "true")
	d.Must(t, "pull", "-q", name)
	if out := d.Must(t, "run", "--rm", name, "echo", "runs"); out != "runs" {
		t.Errorf("%q", out)
	}
	if out := d.Must(t, "system", "verify", "-q"); !strings.HasSuffix(out, "all as they must be") {
		t.Error(out)
	}
}

// A look at the store holds up no run, and a repair takes orphans away at once.
func TestRepairRemovesOrphans(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	layer, blob := d.Dir+"/data/layers/0123456789abcdef0123456789abcdef", d.Dir+"/data/blobs/sha256/"+string(bytes.Repeat([]byte("ab"), 32))
	if err := first(os.MkdirAll(layer+"/fs/etc", 0o755), os.WriteFile(blob, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	out := d.Must(t, "system", "verify", "--repair", "-q")
	if strings.Count(out, "removed: ") != 2 || !strings.HasSuffix(out, "all as they must be") {
		t.Error(out)
	}
	for _, name := range []string{layer, blob} {
		if _, err := os.Lstat(name); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	big := registrytest.Plain(registrytest.Layer("big", noise(64<<20)))
	if err := load(t, d, big.DockerArchive("big:1")); err != "" {
		t.Fatal(err)
	}
	look := d.Command(t, "fief", "system", "verify", "-q")
	if err := look.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- look.Wait() }()
	runs := 0
	for len(ended) == 0 {
		d.Must(t, "run", "--rm", "busybox", "true")
		runs++
		time.Sleep(time.Millisecond)
	}
	if err := <-ended; err != nil || runs < 2 {
		t.Errorf("%d runs while the store was looked through, %v", runs, err)
	}
}
