package crash

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/testenv"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(mnttest.Main(m)) }

// done is an operation and where the disk's log was when it began and when it
// was acknowledged.
type done struct {
	deed
	began, ended int
}

// session does everything that changes a store on a data root and notes when
// each was on disk.
func session(t *testing.T, d *testenv.Daemon, at func() int) []done {
	t.Helper()
	img := func(n string) registrytest.Image {
		return registrytest.Gzipped(registrytest.Layer("base", strings.Repeat("shared ", 9000)), registrytest.Layer("own", n, "dir/"+n, strings.Repeat(n, 4000)))
	}
	registry := &registrytest.Registry{}
	server := httptest.NewServer(registry)
	defer server.Close()
	registry.Push("app", "1", img("app one"))
	registry.Push("app", "2", img("app two"))
	app := strings.TrimPrefix(server.URL, "http://") + "/app:"
	var out []done
	for _, x := range []deed{
		{args: []string{"load"}, stdin: img("one").DockerArchive("one:1"), adds: []string{"one:1"}},
		{args: []string{"pull", app + "1"}, adds: []string{app + "1"}},
		{args: []string{"load"}, stdin: img("two").OCIArchive("two:1"), adds: []string{"two:1"}},
		{args: []string{"tag", "two:1", "three:1"}, adds: []string{"three:1"}},
		{args: []string{"create", "--name", "c1", "busybox", "true"}, makes: []string{"c1"}},
		{args: []string{"run", "--rm", "busybox", "sh", "-c", "echo more >/more"}},
		{args: []string{"start", "-a", "c1"}},
		{args: []string{"cp", "-", "c1:/"}, stdin: registrytest.Layer("copied", "in")},
		{args: []string{"commit", "c1", "com:1"}, adds: []string{"com:1"}},
		{args: []string{"push", app + "1"}},
		{args: []string{"rmi", "one:1"}, drops: []string{"one:1"}},
		{args: []string{"import", "-", "four:1"}, stdin: registrytest.Layer("f", "four"), adds: []string{"four:1"}},
		{args: []string{"create", "--name", "c2", "four:1", "true"}, makes: []string{"c2"}},
		{args: []string{"rm", "c1"}, kills: []string{"c1"}},
		{args: []string{"pull", app + "2"}, adds: []string{app + "2"}},
		{args: []string{"rmi", "two:1", "three:1"}, drops: []string{"two:1", "three:1"}},
		{args: []string{"image", "prune", "-a", "-f"}, drops: []string{app + "1", app + "2", "com:1"}},
		{args: []string{"load"}, stdin: img("one").DockerArchive("one:1"), adds: []string{"one:1"}},
		{args: []string{"pull", app + "1"}, adds: []string{app + "1"}},
		{args: []string{"rmi", "one:1"}, drops: []string{"one:1"}},
	} {
		began := at()
		cmd := d.Command(t, "fief", x.args...)
		cmd.Stdin = bytes.NewReader(x.stdin)
		if out, errs, code := testenv.Output(t, cmd); code != 0 {
			t.Fatalf("%v: exit %d %s%s", x.args, code, out, errs)
		}
		out = append(out, done{x, began, at()})
	}
	return out
}

// stored is what a store of images takes: the names of its blobs and layers, and
// its bytes on disk but those of its state file, whose size is bbolt's affair.
func stored(t *testing.T, root string) (names string, bytes int64) {
	t.Helper()
	var list []string
	for _, pattern := range []string{"blobs/sha256/*", "layers/*", "replaced/*", "building/*", "ingest/*", "dropped/*", "logs/*", "[0-9]*.[0-9]*"} {
		found, _ := filepath.Glob(root + "/" + pattern)
		for _, f := range found {
			list = append(list, f[len(root)+1:])
		}
	}
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(e.Name(), "state.db") || e.Name() == "reserve" {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		bytes += st.Blocks * 512
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	slices.Sort(list)
	return strings.Join(list, "\n"), bytes
}

// clean is the store before a session: one image, and a container of it.
type clean struct {
	names string
	bytes int64
}

// expect is what must be there, and what may, when the power goes at a place in
// the log.
func expect(all []done, cut int) (images, containers []string, maybe deed) {
	is, has := map[string]bool{kept: true}, map[string]bool{"keeper": true}
	for _, x := range all {
		if x.ended > cut {
			if x.began <= cut {
				maybe = x.deed
			}
			break
		}
		for _, n := range x.adds {
			is[n] = true
		}
		for _, n := range x.drops {
			delete(is, n)
		}
		for _, n := range x.makes {
			has[n] = true
		}
		for _, n := range x.kills {
			delete(has, n)
		}
	}
	return slices.Sorted(maps.Keys(is)), slices.Sorted(maps.Keys(has)), maybe
}

// The power goes at any moment: what was flushed is on disk, of what was written
// since any part. The next daemon opens, has everything that was acknowledged,
// every image verifies and can be run, and what nobody needs is gone after a prune.
// FIEF_CRASH_SEEDS=n tries every flush, with all after it lost, and n moments
// between on each file system; else it is a few moments on ext4.
func TestPowerCuts(t *testing.T) {
	kinds, cuts := []string{"ext4"}, 8
	if n, err := strconv.Atoi(os.Getenv("FIEF_CRASH_SEEDS")); err == nil {
		kinds, cuts = []string{"ext4", "xfs", "btrfs"}, n
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { powerCuts(t, kind, cuts) })
	}
}

func powerCuts(t *testing.T, kind string, cuts int) {
	testenv.NeedRoot(t)
	top := t // the base outlives the recording
	fast(t)
	disk := newDisk(t)
	mkfs := map[string][]string{"ext4": {"-q", "-F"}, "xfs": {"-q"}, "btrfs": {"-q"}}[kind]
	mnttest.Tool(t, "mkfs."+kind, append(mkfs, disk.path)...)
	var base *os.File
	var all []done
	var before clean
	t.Run("record", func(t *testing.T) {
		root := mounted(t, disk.path) + "/data"
		d := testenv.Start(t, "--data-root", root)
		d.Busybox(t)
		d.Must(t, "create", "--name", "keeper", "busybox", "true")
		d.Kill(t)
		d.Up(t)
		before.names, before.bytes = stored(t, root)
		mnttest.Tool(t, "sync")
		base = disk.record(top)
		all = session(t, d, disk.at)
	})
	if t.Failed() || all == nil {
		return
	}
	log := disk.log[:all[len(all)-1].ended]
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	places := []int{len(log)}
	flushes := 0
	for i, w := range log {
		if w.data == nil {
			flushes++
			if os.Getenv("FIEF_CRASH_SEEDS") != "" {
				places = append(places, i+1)
			}
		}
	}
	t.Logf("%d writes, %d flushes", len(log)-flushes, flushes)
	for range cuts {
		places = append(places, random.IntN(len(log)))
	}
	slices.Sort(places)
	applied := 0
	for n, cut := range places {
		last := 0
		for i, w := range log[:cut] {
			if w.data == nil {
				last = i + 1
			}
		}
		for ; applied < last; applied++ {
			base.WriteAt(log[applied].data, log[applied].off)
		}
		image := filepath.Join(t.TempDir(), "image")
		mnttest.Tool(t, "cp", "--sparse=always", base.Name(), image)
		lost := tear(t, image, log[last:cut], random)
		t.Run(fmt.Sprintf("cut %d", n), func(t *testing.T) {
			t.Logf("at %d of %d, %d of %d writes since the last flush lost", cut, len(log), lost, cut-last)
			afterCut(t, image, all, cut, before)
		})
		os.Remove(image)
	}
}

// sector is what a disk writes wholly or not at all.
const sector = 512

// tear writes some of what was not flushed, and returns how much was not.
func tear(t *testing.T, image string, open []write, random *rand.Rand) (lost int) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	keep := random.IntN(4) // of three: none, some, most or all
	for _, w := range open {
		if random.IntN(3) >= keep {
			lost++
			continue
		}
		if random.IntN(8) == 0 && len(w.data) > sector { // torn: only sectors are written whole
			w.data = w.data[:sector*(1+random.IntN(len(w.data)/sector))]
		}
		if _, err := f.WriteAt(w.data, w.off); err != nil {
			t.Fatal(err)
		}
	}
	return lost
}

func afterCut(t *testing.T, image string, all []done, cut int, before clean) {
	root := mounted(t, image) + "/data"
	d := testenv.Start(t, "--data-root", root)
	k := &killable{Daemon: d, data: root, names: map[string]string{}, created: map[string]bool{}}
	images, containers, maybe := expect(all, cut)
	for _, n := range images {
		k.names[n] = "acknowledged"
	}
	for _, n := range containers {
		k.created[n] = true
	}
	k.maybe = maybe
	k.whole(t)
	if out := d.Must(t, "run", "--rm", "busybox", "echo", "runs"); out != "runs" {
		t.Errorf("a run says %q", out)
	}
	for c := range k.created {
		if c != "keeper" {
			d.Must(t, "rm", c)
		}
	}
	d.Must(t, "image", "prune", "-a", "-f")
	k.empty(t, "dropped", 0)
	d.Kill(t)
	d.Up(t) // takes away the logs, which the records look for where the disk was mounted then
	k.empty(t, "logs", 0)
	names, bytes := stored(t, root)
	if names != before.names || bytes > before.bytes+512<<10 {
		t.Errorf("pruned it has %d bytes, %s\nclean it has %d, %s", bytes, names, before.bytes, before.names)
	}
}
