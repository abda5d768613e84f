// Package mnttest runs the tests of a package in a mount namespace of their
// own, so that no mount and no loop device is left whatever happens.
package mnttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const inside = "FIEF_TEST_MOUNT_NAMESPACE"

// Main is to be called by TestMain: it runs the test binary again, in a new
// private mount namespace, and returns the exit code.
func Main(m *testing.M) int {
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		return m.Run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // and makes all mounts private
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: mounts need it")
	}
}

// FileSystem makes a file system of a kind and mounts it until the test ends.
// The empty kind is the file system of the temporary directory; "xfs-noreflink"
// is an xfs whose files cannot share blocks, "ext4-quota" and "xfs-quota" hold
// projects to their quotas.
func FileSystem(t testing.TB, kind string) string {
	t.Helper()
	NeedRoot(t)
	dir := t.TempDir()
	switch kind {
	case "":
		return dir
	case "tmpfs":
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512m"); err != nil {
			t.Fatal(err)
		}
	default:
		loop(t, kind, dir)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// loop mounts a fresh image; its loop device goes with the mount.
func loop(t testing.TB, kind, dir string) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 400<<20); err != nil {
		t.Fatal(err)
	}
	switch kind {
	case "ext3", "ext4":
		Tool(t, "mkfs."+kind, "-q", "-F", image)
	case "xfs-noreflink":
		kind = "xfs"
		Tool(t, "mkfs.xfs", "-q", "-m", "reflink=0", image)
	case "ext4-quota":
		Tool(t, "mkfs.ext4", "-q", "-F", "-O", "project,quota", "-E", "quotatype=prjquota", image)
	case "xfs-quota":
		Tool(t, "mkfs.xfs", "-q", image)
	default:
		Tool(t, "mkfs."+kind, "-q", image)
	}
	if kind, ok := strings.CutSuffix(kind, "-quota"); ok {
		if out, err := exec.Command("mount", "-t", kind, "-o", "loop,prjquota", image, dir).CombinedOutput(); err != nil {
			t.Log(string(out))
			t.Skip("kernel: no project quotas on " + kind)
		}
		return
	}
	Tool(t, "mount", "-t", kind, "-o", "loop", image, dir)
}

// Tool runs a program; the test is skipped when it is not installed, or when
// it says that the kernel lacks a file system.
func Tool(t testing.TB, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip("tool: " + name + " is not installed")
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err == nil {
		return
	}
	if strings.Contains(string(out), "unknown filesystem") {
		t.Skip("fs: the kernel has no " + strings.Join(args, " "))
	}
	t.Fatalf("%s %v: %v\n%s", name, args, err, out)
}

// SmallFS makes a tmpfs of that size which is mounted nowhere: it lives as
// long as its descriptor, and every thread reaches it through /proc/self/fd.
func SmallFS(t testing.TB, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: needs to make a file system")
	}
	ctx, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skip("kernel: fsopen: " + err.Error())
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigSetString(ctx, "size", size); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d", fd)
}
