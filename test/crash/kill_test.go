package crash

import (
	"bytes"
	"cmp"
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
	"fief/internal/kernel/mnt/mnttest"
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
	bin      string   // of the build with failpoints
	data     string   // the data root; empty: where testenv puts it
	ways     []string // to shift that the file system below it has besides the best
	registry *httptest.Server
	pushed   *registrytest.Registry
	random   *rand.Rand
	made     int
	names    map[string]string // of images: name → id; what was acknowledged
	created  map[string]bool   // containers, by name
	maybe    deed              // what was not acknowledged: it may have happened or not
	trace    []string
	todo     []deed // before anything at random
	damaged  bool   // a layer; if it was not repaired, the next look does
}

// kept is a name that deeds leave alone.
const kept = "busybox:latest"

// fleeting begins the names of containers that are removed at their end.
const fleeting = "fleeting-"

// deed is one operation and what it changes.
type deed struct {
	args         []string
	stdin        []byte
	adds, drops  []string // image names
	makes, kills []string // containers
	prunes       bool     // drops what no container uses
}

// failing builds the daemon with its failpoints.
func failing(t *testing.T) (bin string) {
	t.Helper()
	testenv.NeedRoot(t)
	bin = filepath.Join(t.TempDir(), "bin")
	cmd := exec.Command("go", "build", "-tags", "failpoint", "-trimpath", "-o", bin+"/", "./cmd/fiefd", "./cmd/fief-mon")
	cmd.Dir, cmd.Env = testenv.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

func newKillable(t *testing.T, bin, data string, seed uint64) *killable {
	t.Helper()
	k := &killable{bin: bin, data: data, random: rand.New(rand.NewPCG(seed, 1)), names: map[string]string{kept: "acknowledged"}, created: map[string]bool{}}
	k.pushed = &registrytest.Registry{}
	k.registry = httptest.NewServer(k.pushed)
	t.Cleanup(k.registry.Close)
	if data == "" {
		k.Daemon = testenv.Start(t)
	} else {
		k.Daemon = testenv.Start(t, "--data-root", data)
	}
	k.Busybox(t)
	k.Must(t, "create", "--name", "keeper", "busybox", "true") // so that nothing prunes it
	k.created["keeper"] = true
	return k
}

// killed runs deeds against a daemon that dies at the nth time it comes to
// point, which may be while it starts, and reports whether it did.
func (k *killable) killed(t *testing.T, point string, nth, deeds int) bool {
	t.Helper()
	k.Kill(t)
	k.trace = append(k.trace, fmt.Sprintf("-- %s:%d", point, nth))
	cmd := exec.Command(k.bin+"/fiefd", "--data-root", k.root(), "--exec-root", k.Dir+"/run", "--id-registry", k.Dir+"/ids", "--debug")
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
	for end := time.Now().Add(time.Minute); !over(); time.Sleep(5 * time.Millisecond) {
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
		if d.prunes {
			k.maybe.drops = k.theirs("")
		}
		return
	}
	for _, n := range d.adds {
		k.names[n] = "acknowledged"
	}
	for _, n := range d.drops {
		delete(k.names, n)
	}
	if d.prunes {
		k.dropUnused(t, over)
	}
	for _, n := range d.makes {
		k.created[n] = true
	}
	for _, n := range d.kills {
		delete(k.created, n)
	}
}

// root is the data root.
func (k *killable) root() string {
	if k.data != "" {
		return k.data
	}
	return k.Dir + "/data"
}

// dropUnused forgets what a prune has removed: it knows what containers use,
// this does not. If the daemon dies meanwhile, what was pruned may be gone.
func (k *killable) dropUnused(t *testing.T, over func() bool) {
	out, _, code := k.Fief(t, "images", "--format", "{{.Repository}}:{{.Tag}}")
	if code != 0 {
		k.maybe = deed{drops: slices.Sorted(maps.Keys(k.names))}
		return
	}
	left := strings.Fields(out)
	maps.DeleteFunc(k.names, func(n, _ string) bool { return n != kept && !slices.Contains(left, n) })
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
	if len(k.todo) > 0 {
		d := k.todo[0]
		k.todo = k.todo[1:]
		return d
	}
	n := k.random.IntN(20)
	if n < 10 {
		return k.imageDeed(t, n)
	}
	return k.containerDeed(n)
}

// pick is one of a sorted list, empty when there is none.
func (k *killable) pick(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[k.random.IntN(len(list))]
}

// theirs are the names that deeds may take away, with a prefix.
func (k *killable) theirs(prefix string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(k.names)), func(n string) bool { return n == kept || !strings.HasPrefix(n, prefix) })
}

func (k *killable) fresh() string { return fmt.Sprintf("i%d:%d", k.random.IntN(6), k.random.IntN(2)) }

func (k *killable) imageDeed(t *testing.T, n int) deed {
	if k.random.IntN(12) == 0 {
		return k.harmed(t)
	}
	fresh, host := k.fresh(), strings.TrimPrefix(k.registry.URL, "http://")
	switch name := k.pick(k.theirs("")); {
	case n < 1:
		return deed{args: []string{"load"}, stdin: k.image().OCIArchive(fresh), adds: []string{fresh}}
	case n < 2:
		k.made++
		return deed{args: []string{"import", "-", fresh}, stdin: registrytest.Layer("f", strconv.Itoa(k.made)), adds: []string{fresh}}
	case n < 4:
		repo := "app" + strconv.Itoa(k.random.IntN(3))
		k.pushed.Push(repo, "latest", k.image())
		return deed{args: []string{"pull", host + "/" + repo + ":latest"}, adds: []string{host + "/" + repo + ":latest"}}
	case n < 5 && name != "":
		return deed{args: []string{"tag", name, fresh}, adds: []string{fresh}}
	case n < 7 && name != "":
		return deed{args: []string{"rmi", "-f", name}, drops: []string{name}}
	case n < 8:
		return deed{args: []string{"image", "prune", "-a", "-f"}, drops: nil, prunes: true}
	case n < 9:
		if own := k.pick(k.theirs(host)); own != "" {
			return deed{args: []string{"push", own}}
		}
	}
	return deed{args: []string{"load"}, stdin: k.image().DockerArchive(fresh), adds: []string{fresh}}
}

// harmed damages a layer and has it repaired.
func (k *killable) harmed(t *testing.T) deed {
	found, _ := filepath.Glob(k.root() + "/layers/*/fs/var/www/index.html")
	for _, name := range found {
		if err := overwrite(name, "hellO\n")(); err != nil {
			t.Fatal(err)
		}
	}
	k.damaged = true
	return deed{args: []string{"system", "verify", "-q", "--repair"}}
}

func (k *killable) containerDeed(n int) deed {
	made := slices.DeleteFunc(slices.Sorted(maps.Keys(k.created)), func(n string) bool { return n == "keeper" })
	k.made++
	name := fmt.Sprintf("c%d-%d", k.made, k.random.IntN(1<<30))
	old := k.pick(made)
	switch {
	case n < 12:
		return deed{args: []string{"create", "--name", name, cmp.Or(k.pick(k.theirs("")), kept), "true"}, makes: []string{name}}
	case n < 13:
		return deed{args: []string{"run", "-d", "--name", "running-" + name, kept, "sleep", "1000"}, makes: []string{"running-" + name}}
	case n < 14:
		return deed{args: []string{"run", "--rm", "--name", fleeting + name, "-v", "/etc", kept, "true"}}
	case n < 15:
		return deed{args: []string{"run", "--rm", "--name", fleeting + name, "--storage-opt", "shift=" + k.pick(k.ways), kept, "true"}}
	case n < 17 && old != "":
		return deed{args: []string{"rm", "-f", old}, kills: []string{old}}
	case n < 18 && old != "":
		fresh := k.fresh()
		return deed{args: []string{"commit", old, fresh}, adds: []string{fresh}}
	case n < 19 && old != "":
		return deed{args: []string{"cp", "-", old + ":/"}, stdin: registrytest.Layer("in", name, "more", name)}
	case old != "" && !strings.HasPrefix(old, "running-"):
		return deed{args: []string{"update", "--userns", "auto", old}}
	}
	return deed{args: []string{"run", "--rm", "--name", fleeting + name, kept, "true"}}
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
	containers := k.lasting(t)
	k.same(t, "container", containers, slices.Sorted(maps.Keys(k.created)), k.maybe.makes, k.maybe.kills)
	k.names, k.created, k.maybe = listed, map[string]bool{}, deed{}
	for _, c := range containers {
		k.created[c] = true
	}
	if k.damaged {
		k.Must(t, "system", "verify", "-q", "--repair")
		k.damaged = false
	}
	out, errs, code := k.Fief(t, "system", "verify", "-q")
	if code != 0 || strings.Contains(out, "orphan") {
		t.Errorf("verify: exit %d, %s%s", code, out, errs)
	}
	k.empty(t, "building", 0)
	k.empty(t, "dropped", 0)
	k.empty(t, "ingest", 0)
	if !slices.ContainsFunc(containers, func(c string) bool { return strings.HasPrefix(c, "running-") }) {
		k.empty(t, "replaced", 0) // else what runs may need it
	}
	k.empty(t, "logs", len(containers))
	k.empty(t, "uppers", 8+len(containers)) // the stock
	k.noCopies(t)
	if t.Failed() {
		t.Fatalf("what was done:\n%s", strings.Join(k.trace[max(0, len(k.trace)-30):], "\n"))
	}
}

// noCopies wants no copies of layers: what asks for them is removed at its end.
func (k *killable) noCopies(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		left, _ := filepath.Glob(k.root() + "/[0-9]*.[0-9]*")
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("copies are left: %v", left)
			return
		}
	}
}

// lasting are the containers that are not removed at their end; the others are
// gone soon.
func (k *killable) lasting(t *testing.T) (names []string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		names = strings.Fields(k.Must(t, "ps", "-a", "--format", "{{.Names}}"))
		all := len(names)
		names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, fleeting) })
		if len(names) == all {
			return names
		}
		if time.Now().After(end) {
			t.Fatalf("a container that removes itself stays: %s", k.Must(t, "ps", "-a"))
		}
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
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		names, _ = os.ReadDir(filepath.Join(k.root(), dir))
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

// The daemon is killed at failpoints while it starts, loads, pulls, pushes, tags,
// removes, prunes, creates, runs, commits, copies: at as many as 20 seconds
// allow, in an order that is another each time. With FIEF_CRASH_SEEDS=n it is
// killed at every one, and then n times anywhere, on each file system.
func TestKilledAtEveryPoint(t *testing.T) {
	fast(t)
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("FIEF_CRASH_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("FIEF_CRASH_SEED=%d", seed)
	bin, kinds := failing(t), []string{"", "ext4"}
	if os.Getenv("FIEF_CRASH_SEEDS") != "" {
		kinds = append(kinds, "xfs", "btrfs")
	}
	for i, kind := range kinds {
		t.Run(cmp.Or(kind, "tmpfs"), func(t *testing.T) {
			data := ""
			if kind != "" {
				data = mnttest.FileSystem(t, kind) + "/data"
			}
			k := newKillable(t, bin, data, seed+uint64(i))
			k.ways = []string{"copy", "metacopy"}
			if kind == "xfs" || kind == "btrfs" {
				k.ways = append(k.ways, "reflink")
			}
			killEverywhere(t, k)
		})
	}
}

func killEverywhere(t *testing.T, k *killable) {
	k.killed(t, "none", 0, 30)
	k.whole(t)
	all := points(t)
	k.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	seeds, _ := strconv.Atoi(os.Getenv("FIEF_CRASH_SEEDS"))
	died, tries := 0, 0
	for end := time.Now().Add(12 * time.Second); tries < len(all) && (seeds > 0 || time.Now().Before(end)); tries++ {
		if k.killed(t, all[tries], 1+k.random.IntN(2), 14) {
			died++
		}
		k.whole(t)
	}
	for range seeds {
		p := "*"
		if k.random.IntN(2) == 0 {
			p = all[k.random.IntN(len(all))]
		}
		if k.killed(t, p, 1+k.random.IntN(60), 14) {
			died++
		}
		tries++
		k.whole(t)
	}
	reached, _ := os.ReadFile(k.Dir + "/points")
	missed := 0
	for _, p := range all {
		if !bytes.Contains(reached, []byte(p+"\n")) {
			missed++
			t.Logf("failpoint %s was not reached", p)
		}
	}
	if seeds >= 50 && missed > len(rare) {
		t.Errorf("%d failpoints were never reached", missed)
	}
	t.Logf("%d failpoints, %d kills at one, of %d tries", len(all), died, tries)
	k.Must(t, "rm", "-f", "keeper")
	k.Must(t, "image", "prune", "-a", "-f")
}

// A daemon killed while it removes a container, repairs a layer or copies one is
// followed by one that has all of it or nothing.
func TestKilledInBetween(t *testing.T) {
	fast(t)
	k := newKillable(t, failing(t), "", 1)
	for i, c := range []struct{ verb, points string }{
		{"rm", "container-removing container-unrecorded container-dropped container-released"},
		{"repair", "layer-remade layer-exchanged layer-mended"},
		{"copy", "copy-filled"},
		{"metacopy", "shadow-filled"},
	} {
		for j, point := range strings.Fields(c.points) {
			name := fmt.Sprintf("between%d-%d", i, j)
			switch c.verb {
			case "rm":
				k.Must(t, "create", "--name", name, kept, "true")
				k.created[name] = true
				k.todo = []deed{{args: []string{"rm", name}, kills: []string{name}}}
			case "repair":
				k.todo = []deed{k.harmed(t)}
			default:
				k.todo = []deed{{args: []string{"run", "--rm", "--name", fleeting + name, "--storage-opt", "shift=" + c.verb, kept, "true"}}}
			}
			if !k.killed(t, point, 1, 1) {
				t.Errorf("%s was not reached", point)
			}
			k.whole(t)
		}
	}
}

// rare are points that other tests kill at: what is quarantined, damaged or
// copied is so by kernel, file system or accident, and verbs on what runs are
// TestKilledInVerbs'.
var rare = []string{"quarantine-begun", "layer-remade", "layer-exchanged", "layer-mended", "copy-filled", "shadow-filled", "volume-mounted",
	"container-frozen", "container-unpausing", "container-killed", "container-between", "limits-set", "exec-starting", "health-arming"}
