package crash

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/testenv"
)

// points are the names of every failpoint in the source.
func points(t *testing.T) []string {
	t.Helper()
	call := regexp.MustCompile(`failpoint\.Hit\("([a-z-]+)"\)`)
	var out []string
	err := filepath.WalkDir(filepath.Join(testenv.Root(), "internal"), func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		raw, err := os.ReadFile(path)
		for _, m := range call.FindAllSubmatch(raw, -1) {
			if slices.Contains(out, string(m[1])) {
				t.Errorf("two failpoints are called %s", m[1])
			}
			out = append(out, string(m[1]))
		}
		return err
	})
	if err != nil || len(out) < 20 {
		t.Fatal(len(out), err)
	}
	return out
}

// killable is a daemon of which any start may be one that dies at a failpoint.
type killable struct {
	*testenv.Daemon
	bin      string // of the build with failpoints
	registry *httptest.Server
	pushed   *registrytest.Registry
	random   *rand.Rand
	made     int
	names    map[string]string // of images: name → id; what was acknowledged
	created  map[string]bool   // containers, by name
	maybe    deed              // what was not acknowledged: it may have happened or not
	trace    []string
}

// deed is one operation and what it changes.
type deed struct {
	args         []string
	stdin        []byte
	adds, drops  []string // image names
	makes, kills []string // containers
}

func newKillable(t *testing.T, seed uint64) *killable {
	t.Helper()
	testenv.NeedRoot(t)
	bin := filepath.Join(t.TempDir(), "bin")
	cmd := exec.Command("go", "build", "-tags", "failpoint", "-trimpath", "-o", bin+"/", "./cmd/fiefd", "./cmd/fief-mon")
	cmd.Dir, cmd.Env = testenv.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k := &killable{bin: bin, random: rand.New(rand.NewPCG(seed, 1)), names: map[string]string{}, created: map[string]bool{}}
	k.pushed = &registrytest.Registry{}
	k.registry = httptest.NewServer(k.pushed)
	t.Cleanup(k.registry.Close)
	k.Daemon = testenv.Start(t)
	return k
}

// killed runs deeds against a daemon that dies at the nth time it comes to
// point, which may be while it starts, and reports whether it did.
func (k *killable) killed(t *testing.T, point string, nth, deeds int) bool {
	t.Helper()
	k.Kill(t)
	k.trace = append(k.trace, fmt.Sprintf("-- %s:%d", point, nth))
	cmd := exec.Command(k.bin+"/fiefd", "--data-root", k.Dir+"/data", "--exec-root", k.Dir+"/run", "--id-registry", k.Dir+"/ids", "--debug")
	log, err := os.OpenFile(k.Dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), fmt.Sprintf("FIEF_FAILPOINT=%s:%d", point, nth), "FIEF_FAILPOINT_LOG="+k.Dir+"/points")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	over := func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
	for end := time.Now().Add(30 * time.Second); !over(); time.Sleep(5 * time.Millisecond) {
		if _, _, code := k.Fief(t, "version"); code == 0 {
			break
		}
		if time.Now().After(end) {
			cmd.Process.Kill()
			t.Fatalf("no answer:\n%s", k.Log())
		}
	}
	for range deeds {
		if over() {
			break
		}
		k.do(t, over)
	}
	died := over()
	cmd.Process.Kill()
	<-ended
	k.Up(t)
	return died && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// do does something at random and notes what was acknowledged.
func (k *killable) do(t *testing.T, over func() bool) {
	t.Helper()
	d := k.next(t)
	cmd := k.Command(t, "fief", d.args...)
	cmd.Stdin = bytes.NewReader(d.stdin)
	out, errs, code := testenv.Output(t, cmd)
	k.trace = append(k.trace, fmt.Sprintf("%s → %d %.200s", strings.Join(d.args, " "), code, errs))
	if code != 0 {
		for end := time.Now().Add(300 * time.Millisecond); !over() && time.Now().Before(end); time.Sleep(time.Millisecond) {
			continue // the connection closed before the process has ended
		}
		if !over() {
			t.Errorf("%v: exit %d %s%s", d.args, code, out, errs)
		}
		k.maybe = d
		return
	}
	for _, n := range d.adds {
		k.names[n] = "acknowledged"
	}
	for _, n := range d.drops {
		delete(k.names, n)
	}
	for _, n := range d.makes {
		k.created[n] = true
	}
	for _, n := range d.kills {
		delete(k.created, n)
	}
}

// image is one of three layers, two of which other images have too.
func (k *killable) image() registrytest.Image {
	k.made++
	shared := strings.Repeat("shared by many ", 3000)
	return registrytest.Gzipped(registrytest.Layer("base", shared, "etc/passwd", "root:x:0:0::/:/bin/sh\n"),
		registrytest.Layer("some", "content "+strconv.Itoa(k.made%3)),
		registrytest.Layer("own", strconv.Itoa(k.made), "dir/file", strings.Repeat(strconv.Itoa(k.made), 5000)))
}

func (k *killable) next(t *testing.T) deed {
	names, made := slices.Sorted(maps.Keys(k.names)), slices.Sorted(maps.Keys(k.created))
	fresh := fmt.Sprintf("i%d:%d", k.random.IntN(6), k.random.IntN(2))
	switch n := k.random.IntN(12); {
	case n < 2:
		return deed{args: []string{"load"}, stdin: k.image().DockerArchive(fresh), adds: []string{fresh}}
	case n < 3:
		return deed{args: []string{"load"}, stdin: k.image().OCIArchive(fresh), adds: []string{fresh}}
	case n < 4:
		k.made++
		return deed{args: []string{"import", "-", fresh}, stdin: registrytest.Layer("f", strconv.Itoa(k.made)), adds: []string{fresh}}
	case n < 6:
		repo := "app" + strconv.Itoa(k.random.IntN(3))
		k.pushed.Push(repo, "latest", k.image())
		name := strings.TrimPrefix(k.registry.URL, "http://") + "/" + repo + ":latest"
		return deed{args: []string{"pull", name}, adds: []string{name}}
	case n < 7 && len(names) > 0:
		return deed{args: []string{"tag", names[k.random.IntN(len(names))], fresh}, adds: []string{fresh}}
	case n < 9 && len(names) > 0:
		name := names[k.random.IntN(len(names))]
		return deed{args: []string{"rmi", "-f", name}, drops: []string{name}}
	case n < 10 && len(names) > 0:
		name := "c" + strconv.Itoa(k.made) + "-" + strconv.Itoa(k.random.IntN(1<<30))
		return deed{args: []string{"create", "--name", name, names[k.random.IntN(len(names))], "true"}, makes: []string{name}}
	case n < 11 && len(made) > 0:
		name := made[k.random.IntN(len(made))]
		return deed{args: []string{"rm", name}, kills: []string{name}}
	case n < 11 && len(names) > 3:
		return deed{args: []string{"image", "prune", "-a", "-f"}, drops: names}
	}
	return deed{args: []string{"load"}, stdin: k.image().DockerArchive(fresh), adds: []string{fresh}}
}

// whole checks a daemon that was started after a kill.
func (k *killable) whole(t *testing.T) {
	t.Helper()
	var images []struct{ Repository, Tag string }
	for line := range strings.Lines(k.Must(t, "images", "--format", "json")) {
		var i struct{ Repository, Tag string }
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			t.Fatal(err, line)
		}
		if i.Tag != "<none>" {
			images = append(images, i)
		}
	}
	listed := map[string]string{}
	for _, i := range images {
		listed[i.Repository+":"+i.Tag] = "acknowledged"
	}
	k.same(t, "image", slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(k.names)), k.maybe.adds, k.maybe.drops)
	containers := strings.Fields(k.Must(t, "ps", "-a", "--format", "{{.Names}}"))
	k.same(t, "container", containers, slices.Sorted(maps.Keys(k.created)), k.maybe.makes, k.maybe.kills)
	k.names, k.created, k.maybe = listed, map[string]bool{}, deed{}
	for _, c := range containers {
		k.created[c] = true
	}
	out, errs, code := k.Fief(t, "system", "verify", "-q")
	if code != 0 || strings.Contains(out, "orphan") {
		t.Errorf("verify: exit %d, %s%s", code, out, errs)
	}
	k.empty(t, "building", 0)
	k.empty(t, "dropped", 0)
	k.empty(t, "ingest", 0)
	k.empty(t, "uppers", 8+len(containers)) // the stock
	if t.Failed() {
		t.Fatalf("what was done:\n%s", strings.Join(k.trace[max(0, len(k.trace)-30):], "\n"))
	}
}

// same compares what is there with what must be: all that was acknowledged,
// and beyond or below that only what the kill cut short.
func (k *killable) same(t *testing.T, kind string, is, must, more, less []string) {
	t.Helper()
	for _, n := range must {
		if !slices.Contains(is, n) && !slices.Contains(less, n) {
			t.Errorf("%s %s was acknowledged and is gone", kind, n)
		}
	}
	for _, n := range is {
		if !slices.Contains(must, n) && !slices.Contains(more, n) {
			t.Errorf("%s %s was removed or never made, and is there", kind, n)
		}
	}
}

// empty waits until a directory below the data root has no more than n entries:
// deletions end in the background.
func (k *killable) empty(t *testing.T, dir string, n int) {
	t.Helper()
	var names []os.DirEntry
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		names, _ = os.ReadDir(filepath.Join(k.Dir, "data", dir))
		if len(names) <= n {
			return
		}
	}
	t.Errorf("%s has %d entries, not %d", dir, len(names), n)
}

// fast puts what a test writes where fsync costs nothing: what a killed process
// leaves is the same there, and a power cut is another test's.
func fast(t *testing.T) {
	if _, err := os.Stat("/dev/shm"); err == nil {
		t.Setenv("TMPDIR", "/dev/shm")
	}
}

// The daemon is killed at failpoints while it starts, loads, pulls, tags,
// removes, prunes, creates: at as many as 20 seconds allow, in an order that is
// another each time. With FIEF_CRASH_SEEDS=n it is killed at every one, and then
// n times anywhere.
func TestKilledAtEveryPoint(t *testing.T) {
	fast(t)
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("FIEF_CRASH_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("FIEF_CRASH_SEED=%d", seed)
	k := newKillable(t, seed)
	k.killed(t, "none", 0, 30)
	k.whole(t)
	all := points(t)
	k.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	seeds, _ := strconv.Atoi(os.Getenv("FIEF_CRASH_SEEDS"))
	died, tries := 0, 0
	for end := time.Now().Add(20 * time.Second); tries < len(all) && (seeds > 0 || time.Now().Before(end)); tries++ {
		if k.killed(t, all[tries], 1+k.random.IntN(2), 12) {
			died++
		}
		k.whole(t)
	}
	for range seeds {
		p := "*"
		if k.random.IntN(2) == 0 {
			p = all[k.random.IntN(len(all))]
		}
		if k.killed(t, p, 1+k.random.IntN(40), 12) {
			died++
		}
		tries++
		k.whole(t)
	}
	reached, _ := os.ReadFile(k.Dir + "/points")
	for _, p := range all {
		if !bytes.Contains(reached, []byte(p+"\n")) && p != "quarantine-begun" {
			t.Errorf("failpoint %s was never reached", p)
		}
	}
	t.Logf("%d failpoints, %d kills at one, of %d tries", len(all), died, tries)
	k.Must(t, "image", "prune", "-a", "-f")
}
