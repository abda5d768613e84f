package userns

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: writing arbitrary maps needs CAP_SETUID and CAP_SETGID")
	}
}

func pairOf(t *testing.T, uid, gid string) idmap.Pair {
	t.Helper()
	u, err := idmap.ParseList([]string{uid})
	if err != nil {
		t.Fatal(err)
	}
	g, err := idmap.ParseList([]string{gid})
	if err != nil {
		t.Fatal(err)
	}
	return idmap.Pair{UID: u, GID: g}
}

// ownerThrough is the owner that a file has when seen through a mount that is
// idmapped with ns.
func ownerThrough(t *testing.T, ns *os.File, dir, file string) (uid, gid uint32) {
	t.Helper()
	mount, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(mount)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &attr); err == unix.EINVAL {
		t.Skip("fs: the temporary directory cannot be idmapped")
	} else if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(mount, file, &st, 0); err != nil {
		t.Fatal(err)
	}
	return st.Uid, st.Gid
}

func TestFilesAreShiftedByTheMaps(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "file"), 7, 1000); err != nil {
		t.Fatal(err)
	}
	ns, err := New(pairOf(t, "0:700000:65536", "0:800000:500,1000:900000:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if uid, gid := ownerThrough(t, ns, dir, "file"); uid != 700007 || gid != 900000 {
		t.Errorf("7:1000 is %d:%d through the mount, want 700007:900000", uid, gid)
	}
}

func TestLargestMapIsTaken(t *testing.T) {
	needRoot(t)
	var spans []idmap.Span
	for i := range uint32(idmap.MaxExtents) {
		spans = append(spans, idmap.Span{In: idmap.Inside(2 * i), Out: idmap.Host(3 * i), N: 1})
	}
	m, err := idmap.New(spans...)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := New(idmap.Pair{UID: m, GID: m})
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
}

func TestLongestTextIsTaken(t *testing.T) {
	needRoot(t)
	var spans []idmap.Span
	for i := range uint32(idmap.MaxExtents) {
		next := append(spans, idmap.Span{In: idmap.Inside(1000000000 + 2*i), Out: idmap.Host(4000000000 + 2*i), N: 1})
		if _, err := idmap.New(next...); err != nil {
			break
		}
		spans = next
	}
	m, err := idmap.New(spans...)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := New(idmap.Pair{UID: m, GID: m})
	if err != nil {
		t.Fatalf("%d bytes: %v", len(m.String()), err)
	}
	ns.Close()
}

func TestMapsWithoutEntriesAreRefused(t *testing.T) {
	one := pairOf(t, "0:700000:1", "0:700000:1")
	for _, pair := range []idmap.Pair{{}, {UID: one.UID}, {GID: one.GID}} {
		if ns, err := New(pair); !fault.Is(err, fault.Invalid) || ns != nil {
			t.Errorf("%v, %v", ns, err)
		}
	}
}

// TestNothingIsLeft makes namespaces from many goroutines while the runtime
// collects, allocates, and is showered with the signals it preempts by.
func TestNothingIsLeft(t *testing.T) {
	needRoot(t)
	pair := pairOf(t, "0:700000:65536", "0:700000:65536")
	before := descriptors(t)
	stop := make(chan struct{})
	var noise, work sync.WaitGroup
	for range 2 {
		noise.Go(func() { disturb(stop) })
	}
	noise.Go(func() { storm(stop) })
	var made atomic.Int32
	for range 6 {
		work.Go(func() {
			for range 25 {
				ns, err := New(pair)
				if err != nil {
					t.Error(err)
					return
				}
				made.Add(1)
				ns.Close()
			}
		})
	}
	work.Wait()
	close(stop)
	noise.Wait()
	if made.Load() != 150 {
		t.Errorf("made %d of 150", made.Load())
	}
	if left := children(t); left != "" {
		t.Errorf("children left: %s", left)
	}
	if after := descriptors(t); after > before+2 { // the runtime's own epoll and eventfd
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	checkSignals(t)
}

func disturb(stop chan struct{}) {
	var keep [][]byte
	for {
		select {
		case <-stop:
			return
		default:
		}
		keep = append(keep, make([]byte, 1<<12))
		if len(keep) > 500 {
			keep = nil
			runtime.GC()
		}
	}
}

func storm(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
			_ = syscall.Kill(os.Getpid(), syscall.SIGURG)
			time.Sleep(20 * time.Microsecond)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func children(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(files) == 0 {
		t.Skip("kernel: no /proc/PID/task/TID/children")
	}
	var all strings.Builder
	for _, file := range files {
		text, _ := os.ReadFile(file) // a thread may have ended
		all.Write(text)
	}
	return all.String()
}

// checkSignals fails when a thread was left with blocked signals.
func checkSignals(t *testing.T) {
	t.Helper()
	files, _ := filepath.Glob("/proc/self/task/*/status")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "SigBlk:") && strings.Trim(strings.TrimPrefix(line, "SigBlk:"), "\t 0\n") != "" {
				t.Errorf("%s has %s", file, line)
			}
		}
	}
}

const killedEnv = "FIEF_TEST_USERNS_KILLED"

// TestMain is also the process that TestChildEndsWithItsParent kills.
func TestMain(m *testing.M) {
	if os.Getenv(killedEnv) == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	pid, _, errno := clonePaused()
	fmt.Println(pid, int(errno))
	select {}
}

func TestChildEndsWithItsParent(t *testing.T) {
	needRoot(t)
	parent := exec.Command("/proc/self/exe")
	parent.Env = append(os.Environ(), killedEnv+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid, errno int
	_, err = fmt.Fscan(out, &pid, &errno)
	var pidfd int
	if err == nil && errno == 0 {
		pidfd, err = unix.PidfdOpen(pid, 0)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	if err != nil || errno != 0 {
		t.Fatal(err, errno)
	}
	defer unix.Close(pidfd)
	polled := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	if n, err := unix.Poll(polled, 5000); n != 1 || err != nil {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		t.Errorf("the child outlived its killed parent: %d, %v", n, err)
	}
}

func BenchmarkNew(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("root: writing arbitrary maps needs CAP_SETUID and CAP_SETGID")
	}
	pair, err := idmap.Range(700000, 65536)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		ns, err := New(pair)
		if err != nil {
			b.Fatal(err)
		}
		ns.Close()
	}
}
