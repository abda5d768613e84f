package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// swapped are the names below a root file system that are exchanged with others
// while containers start in it: mount points, what lies below masks, targets of
// binds, the working directory, the source of a tmpfs that begins with a copy.
var swapped = []string{"proc", "sys", "dev", "etc", "bound", "work", "copied", "dev/null", "hook"}

// probe looks for a file system of the kernel's without its masks, wherever it
// has gone: names may come to mean something else from one moment to the next,
// a working directory does not.
const probe = `
for d in /proc /proc.other /bound /bound.other; do
	cd $d 2>/dev/null && test -e 1/comm || continue
	test -c interrupts || echo BAD no mask on $d
	(echo x >sys/kernel/domainname) 2>/dev/null && echo BAD $d/sys can be written to
	test "$(cat 1/comm)" = busybox || echo BAD $d is of another pid namespace
done
for d in /sys /sys.other; do
	cd $d 2>/dev/null && test -d class/net && ls firmware | grep -q . && echo BAD no mask on $d
done
cd /
test -e /canary && echo BAD the root is the host
echo probed`

// swap exchanges one name in a directory with a directory, a file and links that
// lead out, until it is told to stop. The directory's own name may be exchanged too.
func swap(in *os.Root, path, canary string, stop <-chan struct{}) {
	defer in.Close()
	forms := []func(){
		func() { in.Symlink("etc/.."+canary, path) }, func() { in.Symlink("../../.."+canary, path) }, func() { in.Symlink("/proc/1/root"+canary, path) },
		func() { in.WriteFile(path, nil, 0o666) }, func() { in.Mkdir(path, 0o755) },
	}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if in.Rename(path, path+".other") == nil {
			forms[i%len(forms)]()
			time.Sleep(200 * time.Microsecond)
			in.Remove(path)
		}
		if in.Rename(path+".other", path) != nil { // what a start has made in the meantime is in the way
			in.RemoveAll(path)
			in.Rename(path+".other", path)
		}
		time.Sleep(time.Duration(i%7) * time.Millisecond)
	}
}

// TestRace: while others exchange what is in the root file system of containers
// that start, whose root is the host's, nothing outside it changes, and no
// container has a proc or sysfs without its masks. A start may fail.
func TestRace(t *testing.T) {
	seconds := 8
	if n, err := strconv.Atoi(os.Getenv("FIEF_RACE_SECONDS")); err == nil {
		seconds = n
	}
	b := newBench(t)
	unmap := b.hostUser(false)
	root, canary := filepath.Join(b.bundle, "rootfs"), filepath.Join(b.dir, "canary")
	for _, d := range []string{canary, canary + "/deep", root + "/etc", root + "/bound", root + "/work", root + "/copied", root + "/hook"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(canary+"/null", []byte("of the host"), 0o666); err != nil {
		t.Fatal(err)
	}
	b.config(func(s *specs.Spec) {
		unmap(s)
		s.Process.Args, s.Process.Cwd = []string{"/bin/busybox", "sh", "-c", probe}, "/work/here"
		s.Linux.MaskedPaths = []string{"/proc/interrupts", "/proc/kcore", "/sys/firmware"}
		s.Linux.ReadonlyPaths = []string{"/proc/sys"}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/bound/deep", Type: "bind", Source: canary, Options: []string{"rbind", "ro"}},
			specs.Mount{Destination: "/bound/file", Type: "bind", Source: canary + "/null", Options: []string{"bind", "ro"}},
			specs.Mount{Destination: "/copied", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	})
	before, mounts := listing(t, canary), mountTable(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var parents []*os.Root
	for _, name := range swapped { // all, before the first is exchanged
		in, err := os.OpenRoot(filepath.Join(root, filepath.Dir(name)))
		if err != nil {
			t.Fatal(err)
		}
		parents = append(parents, in)
	}
	for i, name := range swapped {
		wg.Go(func() { swap(parents[i], filepath.Base(name), canary, stop) })
	}
	ran, failed := 0, 0
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end) || ran+failed < 3; {
		out, code := b.run("run", "race")
		if strings.Contains(out, "BAD") {
			t.Error(out)
		}
		if code == 0 && strings.Contains(out, "probed") {
			ran++
		} else {
			failed++
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d ran, %d were refused", ran, failed)
	if after := listing(t, canary); after != before {
		t.Errorf("the host's directory was\n%s\nand is\n%s", before, after)
	}
	if after := mountTable(t); after != mounts {
		t.Errorf("mounts were\n%s\nand are\n%s", mounts, after)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
		if err == nil {
			list = append(list, p+" "+st.Mode().String()+" "+st.ModTime().String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, "\n")
}

func mountTable(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
