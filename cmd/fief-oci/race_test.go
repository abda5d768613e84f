package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// pace is how often names are exchanged: as often as lets most containers start.
// An attack under which none does proves nothing of those that would.
type pace struct {
	rest atomic.Int64 // nanoseconds between two exchanges of a name
	made atomic.Int64 // exchanges
}

// follow makes seven of ten starts succeed in the long run, however fast the
// machine is: 0.75^7 · 2^3 is one, nearly.
func (p *pace) follow(started bool) {
	rest := time.Duration(p.rest.Load())
	if started {
		rest = max(rest*3/4, 200*time.Microsecond)
	} else {
		rest = min(rest*2, time.Second)
	}
	p.rest.Store(int64(rest))
}

// swap exchanges one name in a directory with a directory, a file and links that
// lead out, until it is told to stop. The directory's own name may be exchanged too.
func swap(in *os.Root, path, canary string, p *pace, stop <-chan struct{}) {
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
		p.made.Add(1)
		time.Sleep(time.Duration(p.rest.Load() * int64(1+i%7) / 4))
	}
}

// TestRace: while others exchange what is in the root file system of containers
// that start, whose root is the host's, nothing outside it changes, and no
// container has a proc or sysfs without its masks. A start may fail, but most do
// not. A build that looks for what it masks from the root on is caught.
func TestRace(t *testing.T) {
	seconds := 8
	if n, err := strconv.Atoi(os.Getenv("FIEF_RACE_SECONDS")); err == nil {
		seconds = n
	}
	t.Run("as it is", func(t *testing.T) {
		b := newBench(t)
		over := time.Now().Add(time.Duration(seconds) * time.Second)
		ran, failed := 0, 0
		raced(b, swapped, func(started bool, harm string) bool {
			if harm != "" {
				t.Error(harm)
			}
			if started {
				ran++
			} else {
				failed++
			}
			return time.Now().Before(over) || ran+failed < 40
		})
		t.Logf("%d ran, %d were refused", ran, failed)
		if ran < failed {
			t.Errorf("only %d of %d ran: that proves little", ran, ran+failed)
		}
	})
	t.Run("weak", func(t *testing.T) {
		b := newBench(t)
		b.weakly()
		caught, starts := false, 0
		end := time.Now().Add(4 * time.Minute)
		raced(b, swapped[:2], func(_ bool, harm string) bool {
			starts++
			caught = caught || harm != ""
			return !caught && time.Now().Before(end)
		})
		t.Logf("%d starts", starts)
		if !caught {
			t.Error("a weak build is safe too: this proves nothing")
		}
	})
}

// raced starts containers while names are exchanged, as long as more, which is told
// whether one ran and what was wrong in it, says so. What must not change is
// compared at the end.
func raced(b *bench, names []string, more func(started bool, harm string) bool) {
	t := b.t
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
	var p pace
	p.rest.Store(int64(20 * time.Millisecond))
	var wg sync.WaitGroup
	var parents []*os.Root
	for _, name := range names { // all, before the first is exchanged
		in, err := os.OpenRoot(filepath.Join(root, filepath.Dir(name)))
		if err != nil {
			t.Fatal(err)
		}
		parents = append(parents, in)
	}
	for i, name := range names {
		wg.Go(func() { swap(parents[i], filepath.Base(name), canary, &p, stop) })
	}
	for goOn := true; goOn; {
		out, code := b.run("run", "race")
		harm := ""
		if strings.Contains(out, "BAD") {
			harm = out
		}
		started := code == 0 && strings.Contains(out, "probed")
		p.follow(started)
		goOn = more(started, harm)
	}
	close(stop)
	wg.Wait()
	t.Logf("%d exchanges, at the end one of each name in %v", p.made.Load(), time.Duration(p.rest.Load()))
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
