package userns

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

func openNS(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestMapsOf: a descriptor is enough to know a namespace's maps, and nothing is
// left of the looking.
func TestMapsOf(t *testing.T) {
	needRoot(t)
	for _, pair := range []idmap.Pair{
		pairOf(t, "0:100000:65536", "0:300000:65536"),
		pairOf(t, "0:100000:10,20:7:1,4000:200000:5", "0:100000:1"),
	} {
		ns, err := New(pair)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		before, kids := descriptors(t), children(t)
		for range 20 {
			got, err := MapsOf(ns)
			if err != nil || !got.Equal(pair) {
				t.Fatalf("%v, %v, want %v", got, err, pair)
			}
		}
		if now := descriptors(t); now > before {
			t.Errorf("%d descriptors before, %d after", before, now)
		}
		if now := children(t); now != kids {
			t.Errorf("children before %q, after %q", kids, now)
		}
	}
}

// TestMapsOfRefusals: only another user namespace with maps has any.
func TestMapsOfRefusals(t *testing.T) {
	needRoot(t)
	pid, pidfd, errno := clonePaused()
	if errno != 0 {
		t.Fatal(errno)
	}
	child := process{pid, os.NewFile(uintptr(pidfd), "pidfd")}
	defer child.end()
	null := openNS(t, "/dev/null")
	for name, f := range map[string]*os.File{
		"own": openNS(t, "/proc/self/ns/user"), "of another kind": openNS(t, "/proc/self/ns/net"), "a device": null,
		"without maps": openNS(t, child.path("ns/user")),
	} {
		if _, err := MapsOf(f); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOwnerOf: a namespace made by a thread of the host is the host's.
func TestOwnerOf(t *testing.T) {
	needRoot(t)
	made := make(chan *os.File)
	runtime.LockOSThread() // or it would change what /proc/self shows, were this the first thread
	defer runtime.UnlockOSThread()
	go func() {
		runtime.LockOSThread() // and ends with its thread
		if err := unix.Unshare(unix.CLONE_NEWIPC); err != nil {
			t.Error(err)
		}
		f, err := os.Open("/proc/thread-self/ns/ipc")
		if err != nil {
			t.Error(err)
		}
		made <- f
	}()
	ipc := <-made
	defer ipc.Close()
	owner, err := OwnerOf(ipc)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	own := openNS(t, "/proc/thread-self/ns/user")
	if same, err := Same(owner, own); err != nil || !same {
		t.Error("the owner is another", err)
	}
	if same, err := Same(ipc, openNS(t, "/proc/thread-self/ns/ipc")); err != nil || same {
		t.Error("a new namespace is the old one", err)
	}
	if _, err := OwnerOf(openNS(t, "/dev/null")); err == nil {
		t.Error("a device has an owner")
	}
}
