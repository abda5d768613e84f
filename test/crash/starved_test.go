package crash

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/testenv"

	"golang.org/x/sys/unix"
)

// load gives a daemon an archive; the failure is what it said.
func load(t *testing.T, d *testenv.Daemon, archive []byte) (failure string) {
	t.Helper()
	cmd := d.Command(t, "fief", "load", "-q")
	cmd.Stdin = bytes.NewReader(archive)
	out, errs, code := testenv.Output(t, cmd)
	if code == 0 {
		return ""
	}
	return out + errs
}

// wholeAfter wants a store without damage and orphans whose images are these.
func wholeAfter(t *testing.T, d *testenv.Daemon, images ...string) {
	t.Helper()
	k := &killable{Daemon: d, names: map[string]string{}, created: map[string]bool{}}
	for _, n := range images {
		k.names[n] = "acknowledged"
	}
	for c := range strings.FieldsSeq(d.Must(t, "ps", "-a", "--format", "{{.Names}}")) {
		k.created[c] = true
	}
	k.whole(t)
}

// noise is what no compression makes smaller.
func noise(n int) string {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

// On a disk without a byte left, whatever needs room says so and changes
// nothing, and what gives room back works: rm, rmi, prune.
func TestNoRoom(t *testing.T) {
	testenv.NeedRoot(t)
	kinds := []string{"tmpfs", "ext4"}
	if os.Getenv("FIEF_CRASH_SEEDS") != "" {
		kinds = append(kinds, "xfs", "btrfs")
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { noRoom(t, kind) })
	}
}

func noRoom(t *testing.T, kind string) {
	var top string
	if kind == "tmpfs" {
		top = t.TempDir()
		if err := unix.Mount("fief-small", top, "tmpfs", 0, "size=40m,mode=700"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(top, unix.MNT_DETACH) })
	} else {
		top = mnttest.FileSystem(t, kind)
	}
	d := testenv.Start(t, "--data-root", top+"/data")
	d.Busybox(t)
	small := registrytest.Gzipped(registrytest.Layer("f", "small"))
	big := registrytest.Plain(registrytest.Layer("big", noise(4<<20)))
	if err := load(t, d, small.DockerArchive("small:1")); err != "" {
		t.Fatal(err)
	}
	if err := load(t, d, small.DockerArchive("pruned:1")); err != "" {
		t.Fatal(err)
	}
	d.Must(t, "create", "--name", "gone", "busybox", "true")
	registry := &registrytest.Registry{}
	server := httptest.NewServer(registry)
	defer server.Close()
	registry.Push("big", "1", big)
	written := d.Command(t, "fief", "cp", "-", "gone:/")
	written.Stdin = bytes.NewReader(registrytest.Layer("big", noise(2<<20)))
	if out, errs, code := testenv.Output(t, written); code != 0 {
		t.Fatal(out, errs)
	}
	fill(t, top)
	for _, args := range [][]string{{"pull", strings.TrimPrefix(server.URL, "http://") + "/big:1"}, {"commit", "gone", "big:3"}} {
		if out, errs, code := d.Fief(t, args...); code == 0 || !strings.Contains(errs, "no space left on device") || !strings.Contains(errs, "free some space") {
			t.Errorf("%v: exit %d, %s%s", args, code, out, errs)
		}
	}
	if out, errs, code := d.Fief(t, "run", "--rm", "busybox", "true"); code != 0 && !strings.Contains(errs, "no space left on device") {
		t.Errorf("run: exit %d, %s%s", code, out, errs)
	}
	if err := load(t, d, big.DockerArchive("big:1")); !strings.Contains(err, "no space left on device") {
		t.Errorf("load: %q", err)
	}
	cmd := d.Command(t, "fief", "import", "-", "big:2")
	cmd.Stdin = bytes.NewReader(registrytest.Layer("big", noise(5<<20)))
	if _, errs, code := testenv.Output(t, cmd); code == 0 || !strings.Contains(errs, "no space left on device") {
		t.Errorf("import: exit %d, %s", code, errs)
	}
	d.Must(t, "rm", "gone")
	d.Must(t, "rmi", "small:1")
	d.Kill(t)
	d.Up(t) // also on a full disk
	fill(t, top)
	d.Must(t, "image", "prune", "-a", "-f")
	if out := d.Must(t, "images", "-q"); out != "" {
		t.Errorf("prune left %s", out)
	}
	if err := os.RemoveAll(top + "/filler"); err != nil {
		t.Fatal(err)
	}
	d.Busybox(t)
	if err := load(t, d, big.DockerArchive("big:1")); err != "" {
		t.Error(err)
	}
	wholeAfter(t, d, "busybox:latest", "big:1")
}

// A file system without an inode left is a full one.
func TestNoInodes(t *testing.T) {
	testenv.NeedRoot(t)
	top := t.TempDir()
	if err := unix.Mount("fief-small", top, "tmpfs", 0, "size=100m,nr_inodes=3000,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(top, unix.MNT_DETACH) })
	d := testenv.Start(t, "--data-root", top+"/data")
	d.Busybox(t)
	small := registrytest.Gzipped(registrytest.Layer("f", "small"))
	if err := load(t, d, small.DockerArchive("small:1")); err != "" {
		t.Fatal(err)
	}
	d.Must(t, "create", "--name", "gone", "busybox", "true")
	os.Mkdir(top+"/filler", 0o700)
	for i := 0; os.Mkdir(fmt.Sprintf("%s/filler/%d", top, i), 0o700) == nil; i++ {
		continue
	}
	if err := load(t, d, registrytest.Plain(registrytest.Layer("a/b/c", "2")).DockerArchive("more:1")); !strings.Contains(err, "no space left on device") {
		t.Errorf("load: %q", err)
	}
	d.Must(t, "rm", "gone")
	d.Kill(t)
	d.Up(t)
	d.Must(t, "rmi", "small:1")
	if err := os.RemoveAll(top + "/filler"); err != nil {
		t.Fatal(err)
	}
	wholeAfter(t, d, "busybox:latest")
	d.Must(t, "run", "--rm", "busybox", "true")
}

// fill takes every byte and what inodes it can.
func fill(t *testing.T, top string) {
	t.Helper()
	dir := top + "/filler"
	os.Mkdir(dir, 0o700)
	for size := 1 << 20; size >= 1; size /= 16 {
		for i := range 4096 {
			name := filepath.Join(dir, fmt.Sprintf("%d-%d", size, i))
			if _, err := os.Lstat(name); err == nil {
				continue
			}
			if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
				break
			}
		}
	}
	unix.Sync()
}

// A daemon that may open few files refuses what needs more, by name, and goes
// on with what does not.
func TestFewDescriptors(t *testing.T) {
	testenv.NeedRoot(t)
	fast(t)
	d := testenv.Start(t)
	d.Busybox(t)
	images := []string{"busybox:latest"}
	img := registrytest.Gzipped(registrytest.Layer("a/b/c/d/e/f", "1"), registrytest.Layer("b/c", "2"), registrytest.Layer("c/d", "3"))
	registry := &registrytest.Registry{}
	server := httptest.NewServer(registry)
	defer server.Close()
	registry.Push("app", "1", registrytest.Gzipped(registrytest.Layer("pulled/file", "1"), registrytest.Layer("more", "2")))
	app := strings.TrimPrefix(server.URL, "http://") + "/app:1"
	refused := 0
	for _, more := range []int{0, 1, 3, 6, 11, 20} {
		limit := uint64(open(t, d) + more)
		var old unix.Rlimit
		if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, nil, &old); err != nil {
			t.Fatal(err)
		}
		if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: old.Max}, nil); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("few:%d", more)
		failure := load(t, d, img.DockerArchive(name))
		_, errs, code := d.Fief(t, "create", "--name", name[:3]+name[4:], "busybox", "true")
		_, _, gone := d.Fief(t, "rmi", "no-such-image")
		_, pulling, unpulled := d.Fief(t, "pull", app)
		if _, ran, failed := d.Fief(t, "run", "--rm", "busybox", "true"); failed != 0 && !named(ran) {
			t.Errorf("%d more: run says %q", more, ran)
		}
		if d.Ended() {
			t.Fatalf("with %d descriptors more the daemon ended", more)
		}
		if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &old, nil); err != nil {
			t.Fatal(err)
		}
		if unpulled == 0 {
			images = append(images, app)
			d.Must(t, "tag", app, fmt.Sprintf("pulled:%d", more))
			images = append(images, fmt.Sprintf("pulled:%d", more))
		} else if !named(pulling) {
			t.Errorf("%d more: pull says %q", more, pulling)
		}
		if failure == "" {
			images = append(images, name)
		} else if refused++; !named(failure) {
			t.Errorf("%d more: load says %q", more, failure)
		}
		if code != 0 && !named(errs) {
			t.Errorf("%d more: create says %q", more, errs)
		}
		t.Logf("%d more: load %.100q, create %d %.100q, rmi %d", more, failure, code, errs, gone)
	}
	if refused == 0 {
		t.Error("nothing was refused: the test tests nothing")
	}
	d.Kill(t)
	d.Up(t)
	wholeAfter(t, d, images...)
	d.Must(t, "run", "--rm", "busybox", "true")
}

// named reports whether a failure says what is exhausted, or that the daemon
// does not answer because it cannot take the connection.
func named(failure string) bool {
	for _, say := range []string{"too many open files", "cannot reach the daemon", "cannot hear from the daemon"} {
		if strings.Contains(failure, say) {
			return true
		}
	}
	return false
}

func open(t *testing.T, d *testenv.Daemon) int {
	t.Helper()
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// A disk that fails writes ends an operation with its error; with the disk whole
// again everything that was acknowledged is there. One that fails reads is told
// by verify, which looks at the rest all the same.
func TestFailingDisk(t *testing.T) {
	testenv.NeedRoot(t)
	fast(t)
	disk := newDisk(t)
	mnttest.Tool(t, "mkfs.ext4", "-q", "-F", disk.path)
	img := func(n string) []byte {
		return registrytest.Plain(registrytest.Layer("own", n, "f", noise(600<<10)+n)).DockerArchive(n + ":1")
	}
	loaded := []string{"busybox:latest"}
	for round, after := range []int{0, 9} {
		t.Run(fmt.Sprintf("writes, after %d", after), func(t *testing.T) {
			top := mounted(t, disk.path)
			d := testenv.Start(t, "--data-root", top+"/data")
			if round == 0 {
				d.Busybox(t)
			}
			name := fmt.Sprintf("kept%d", round)
			if err := load(t, d, img(name)); err != "" {
				t.Fatal(err)
			}
			loaded = append(loaded, name+":1")
			count := 0
			disk.failWhen(func(op string, _ int64) bool { count++; return op != "read" && count > after })
			failure := load(t, d, img("lost"))
			for _, say := range []string{"input/output error", "read-only file system", "structure needs cleaning"} {
				if strings.Contains(failure, say) {
					failure = ""
				}
			}
			if failure != "" || load(t, d, img("lost2")) == "" {
				t.Errorf("load on a disk that fails: %q", failure)
			}
			d.Kill(t)
			syscall.Unmount(top, 0)
			disk.failWhen(nil)
			d.Args("--data-root", mounted(t, disk.path)+"/data")
			d.Up(t)
			wholeAfter(t, d, loaded...)
		})
	}
	t.Run("reads", func(t *testing.T) { failingReads(t, disk) })
}

func failingReads(t *testing.T, disk *disk) {
	top := mounted(t, disk.path)
	d := testenv.Start(t, "--data-root", top+"/data")
	disk.failWhen(func(op string, off int64) bool { return op == "read" && off > 64<<20 })
	out, errs, code := d.Fief(t, "system", "verify", "-q")
	disk.failWhen(nil)
	if code != 1 || !strings.Contains(out+errs, "input/output error") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	if out := d.Must(t, "system", "verify", "-q"); !strings.HasSuffix(out, "all as they must be") {
		t.Errorf("with the disk whole again: %s", out)
	}
}
