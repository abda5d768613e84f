package crash

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
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
)

func TestMain(m *testing.M) { os.Exit(mnttest.Main(m)) }

// done is an operation and where the disk's log was when it began and when it
// was acknowledged.
type done struct {
	deed
	began, ended int
}

// session does things on a data root and notes when each was on disk.
func session(t *testing.T, d *testenv.Daemon, at func() int) []done {
	t.Helper()
	img := func(n string) registrytest.Image {
		return registrytest.Gzipped(registrytest.Layer("base", strings.Repeat("shared ", 9000)), registrytest.Layer("own", n, "dir/"+n, strings.Repeat(n, 4000)))
	}
	var out []done
	for _, x := range []deed{
		{args: []string{"load"}, stdin: img("one").DockerArchive("one:1"), adds: []string{"one:1"}},
		{args: []string{"load"}, stdin: img("two").OCIArchive("two:1"), adds: []string{"two:1"}},
		{args: []string{"tag", "two:1", "three:1"}, adds: []string{"three:1"}},
		{args: []string{"create", "--name", "c1", "busybox", "true"}, makes: []string{"c1"}},
		{args: []string{"rmi", "one:1"}, drops: []string{"one:1"}},
		{args: []string{"import", "-", "four:1"}, stdin: registrytest.Layer("f", "four"), adds: []string{"four:1"}},
		{args: []string{"create", "--name", "c2", "busybox", "true"}, makes: []string{"c2"}},
		{args: []string{"rm", "c1"}, kills: []string{"c1"}},
		{args: []string{"load"}, stdin: img("one").DockerArchive("one:1"), adds: []string{"one:1"}},
		{args: []string{"rmi", "two:1", "three:1"}, drops: []string{"two:1", "three:1"}},
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

// expect is what must be there, and what may, when the power goes at a place in
// the log.
func expect(all []done, cut int) (images, containers []string, maybe deed) {
	is, has := map[string]bool{"busybox:latest": true}, map[string]bool{}
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
// and every image verifies and can be run. FIEF_CRASH_SEEDS=n tries n moments on
// each file system; else it is a few on ext4.
func TestPowerCuts(t *testing.T) {
	kinds, cuts := []string{"ext4"}, 6
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
	t.Run("record", func(t *testing.T) {
		d := testenv.Start(t, "--data-root", mounted(t, disk.path)+"/data")
		d.Busybox(t)
		mnttest.Tool(t, "sync")
		base = disk.record(top)
		all = session(t, d, disk.at)
	})
	if t.Failed() || all == nil {
		return
	}
	log := disk.log[:all[len(all)-1].ended]
	flushes := 0
	for _, w := range log {
		if w.data == nil {
			flushes++
		}
	}
	t.Logf("%d writes, %d flushes", len(log)-flushes, flushes)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	places := []int{len(log)}
	for len(places) < cuts {
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
			afterCut(t, image, all, cut)
		})
		os.Remove(image)
	}
}

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
		if _, err := f.WriteAt(w.data, w.off); err != nil {
			t.Fatal(err)
		}
	}
	return lost
}

func afterCut(t *testing.T, image string, all []done, cut int) {
	d := testenv.Start(t, "--data-root", mounted(t, image)+"/data")
	k := &killable{Daemon: d, names: map[string]string{}, created: map[string]bool{}}
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
}
