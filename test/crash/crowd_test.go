package crash

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/testenv"
)

// Several clients pull, load, run, commit, prune and remove images that share
// their layers, all at once, and the daemon is killed now and then. What is
// refused is refused for want of an image; nothing that runs lacks a file, and
// nothing is left in the end.
func TestCrowd(t *testing.T) {
	fast(t)
	d := testenv.Start(t)
	g := &registrytest.Registry{}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	base := testenv.BusyboxTar(t)
	var archives [3][]byte
	var names [3]string
	for i := range archives {
		img := registrytest.Gzipped(base, registrytest.Layer("shared", "by all"), registrytest.Layer("own", fmt.Sprint(i)))
		g.Push(fmt.Sprintf("app%d", i), "1", img)
		names[i] = fmt.Sprintf("%s/app%d:1", strings.TrimPrefix(server.URL, "http://"), i)
		archives[i] = img.DockerArchive(names[i])
	}
	long := 4 * time.Second
	if os.Getenv("FIEF_CRASH_SEEDS") != "" {
		long = time.Minute
	}
	c := &crowd{d: d, names: names, archives: archives}
	for round := range 2 {
		var all sync.WaitGroup
		end := time.Now().Add(long / 2)
		for range 5 {
			all.Go(func() {
				for time.Now().Before(end) {
					c.step(t)
				}
			})
		}
		all.Wait()
		if round == 0 { // in the middle of what the next crowd would do
			all.Go(func() { c.pulled(t, 0) })
			all.Go(func() { c.pulled(t, 1) })
			time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
			d.Kill(t)
			all.Wait()
			d.Up(t)
		}
	}
	if c.ran == 0 || c.gone == 0 {
		t.Errorf("%d runs and %d removals: the test tests nothing", c.ran, c.gone)
	}
	t.Logf("%d runs, %d removals", c.ran, c.gone)
	for id := range strings.FieldsSeq(d.Must(t, "ps", "-aq")) {
		d.Must(t, "rm", "-f", id)
	}
	if out := d.Must(t, "system", "verify", "-q"); strings.Contains(out, "orphan") || !strings.HasSuffix(out, "all as they must be") {
		t.Error(out)
	}
	d.Must(t, "image", "prune", "-a", "-f")
	k := &killable{Daemon: d}
	for _, dir := range []string{"blobs/sha256", "layers", "building", "dropped", "ingest", "replaced", "logs"} {
		k.empty(t, dir, 0)
	}
}

type crowd struct {
	d        *testenv.Daemon
	names    [3]string
	archives [3][]byte

	mu        sync.Mutex
	ran, gone int // guarded by mu
}

// fief runs a client and never ends the test, which only its own goroutine may do.
func (c *crowd) fief(t *testing.T, stdin []byte, args ...string) (out, errs string, code int) {
	cmd := c.d.Command(t, "fief", args...)
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &o, &e
	cmd.Run()
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

func (c *crowd) pulled(t *testing.T, i int) { c.fief(t, nil, "pull", "-q", c.names[i]) }

func (c *crowd) step(t *testing.T) {
	i := rand.IntN(len(c.names))
	var args []string
	var stdin []byte
	want := ""
	switch n := rand.IntN(12); {
	case n < 4:
		args, want = []string{"run", "--rm", c.names[i], "cat", "/own", "/shared"}, fmt.Sprint(i)+"by all"
	case n < 6:
		args = []string{"pull", "-q", c.names[i]}
	case n < 7:
		args, stdin = []string{"load", "-q"}, c.archives[i]
	case n < 8:
		args = []string{"rmi", "-f", c.names[i]}
	case n < 9:
		args = []string{"image", "prune", "-a", "-f"}
	case n < 10:
		args = []string{"system", "verify", "-q", "--repair"}
	default:
		c.commit(t, i)
		return
	}
	out, errs, code := c.fief(t, stdin, args...)
	if code != 0 && !benign(errs) {
		t.Errorf("%v: exit %d %s%s", args, code, out, errs)
	}
	if code == 0 && want != "" && out != want {
		t.Errorf("%v says %q, not %q", args, out, want)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if code == 0 && want != "" {
		c.ran++
	}
	if code == 0 && (args[0] == "rmi" || args[1] == "prune") {
		c.gone++
	}
}

// commit makes an image of a new container, runs it, and removes both.
func (c *crowd) commit(t *testing.T, i int) {
	id, errs, code := c.fief(t, nil, "create", c.names[i], "true")
	id = strings.TrimSpace(id)
	if code != 0 {
		if !benign(errs) {
			t.Errorf("create: %s", errs)
		}
		return
	}
	defer c.fief(t, nil, "rm", "-f", id)
	made := "made:" + id[:12]
	if out, errs, code := c.fief(t, nil, "commit", id, made); code != 0 {
		t.Errorf("commit: %s%s", out, errs)
	}
	if out, errs, code := c.fief(t, nil, "run", "--rm", made, "cat", "/own"); code != 0 && !benign(errs) || code == 0 && out != fmt.Sprint(i) {
		t.Errorf("what was committed says %d %q %s", code, out, errs)
	}
	c.fief(t, nil, "rmi", "-f", made)
}

// benign reports whether a failure is that somebody else removed the image, or
// uses it.
func benign(errs string) bool {
	for _, say := range []string{"Unable to find image 'made:", // pruned between commit and run, and in no registry
		"No such image", "is using its referenced image", "is being used by", "manifest unknown", "pull access denied", "cannot find the image"} {
		if strings.Contains(errs, say) {
			return true
		}
	}
	return false
}
