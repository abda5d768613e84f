package shift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/idmap"
)

const (
	rootlessPart = "FIEF_TEST_ROOTLESS"
	noMount      = 3 // exit code of a process that finds the kernel too old
)

// TestRootlessShadow mounts a shadow in a user namespace, where no file system
// of the host can be idmapped: with userxattr the same attributes below
// user.overlay.* do (Linux 6.16). The files appear under the ids of the shadow,
// and what changes is copied up with them.
func TestRootlessShadow(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs", "btrfs", "tmpfs"} {
		t.Run(fs, func(t *testing.T) { rootlessShadow(t, mnttest.FileSystem(t, fs)) })
	}
}

func rootlessShadow(t *testing.T, dir string) {
	if unix.Setxattr(dir, "user.note", nil, 0) == unix.ENOTSUP {
		t.Skip("kernel: tmpfs has user attributes since Linux 6.6")
	}
	const base, container = 1 << 20, 30000 // where the user's ids begin, and in them a container's
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)))
	for _, sub := range []string{"data", "data/dir", "shadow", "upper", "work", "mnt"} {
		must(os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	for _, sub := range []string{"upper", "work"} {
		must(os.Chown(filepath.Join(dir, sub), base, base))
	}
	file := filepath.Join(dir, "data/dir/file")
	must(os.WriteFile(file, []byte("kept"), 0o640))
	must(os.Chown(file, 33, 44))
	src, err := os.Open(filepath.Join(dir, "data"))
	must(err)
	defer src.Close()
	dst, err := os.Open(filepath.Join(dir, "shadow"))
	must(err)
	defer dst.Close()
	pair, err := idmap.Range(base+container, 1<<15)
	must(err)
	must(CopyTree(context.Background(), Job{Src: src, Dst: dst, Pair: pair, Way: Metacopy}))
	must(os.Chown(file, base+33, base+44)) // a user's store has the user's ids, or its root could not read
	forUsers(t, filepath.Join(dir, "shadow/dir/file"))
	same(t, inNamespace(t, dir, base), map[string]string{
		"read": "kept ok", "owner": "30033:30044", "append": "ok", "again": "kept and more ok", "owner again": "30033:30044",
		"rm -r": "ok", "mkdir": "ok", "left": "0 ok",
	})
}

// forUsers gives a shadow's file the attributes that userxattr asks for.
func forUsers(t *testing.T, file string) {
	t.Helper()
	for _, name := range []string{overlayRedirect, overlayMetacopy} {
		value := make([]byte, 256)
		n, err := unix.Lgetxattr(file, name, value)
		if err == nil {
			err = unix.Lsetxattr(file, "user."+name[len("trusted."):], value[:n], 0)
		}
		if err := errors.Join(err, unix.Lremovexattr(file, name)); err != nil {
			t.Fatal(name, err)
		}
	}
}

// inNamespace runs useShadow as root of a user namespace, in dir. overlayfs takes
// layers from the mount namespace of the caller, so dir is a path.
func inNamespace(t *testing.T, dir string, base int) map[string]string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{rootlessPart + "=" + dir}
	cmd.Stderr = os.Stderr
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: 1 << 16}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
	out, err := cmd.Output()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == noMount {
		t.Skip("kernel: data-only layers in a user namespace came with Linux 6.16")
	}
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func useShadow() int {
	const data = "userxattr,lowerdir=shadow::data,upperdir=upper,workdir=work"
	err := unix.Chdir(os.Getenv(rootlessPart))
	if err == nil {
		err = unix.Mount("overlay", "mnt", "overlay", 0, data)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mount in a user namespace:", err)
		return noMount
	}
	if _, err := os.Stat("mnt/dir/file"); errors.Is(err, unix.EPERM) {
		return noMount
	}
	const file = "mnt/dir/file"
	out := map[string]string{"owner": ownerOf(file), "read": read(file)}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(" and more")
		err = errors.Join(err, f.Close())
	}
	out["append"] = result(err)
	out["again"], out["owner again"] = read(file), ownerOf(file)
	out["rm -r"] = result(os.RemoveAll("mnt/dir"))
	out["mkdir"] = result(os.Mkdir("mnt/dir", 0o755))
	left, err := os.ReadDir("mnt/dir")
	out["left"] = fmt.Sprint(len(left), " ", result(err))
	json.NewEncoder(os.Stdout).Encode(out)
	return 0
}

func read(path string) string {
	b, err := os.ReadFile(path)
	return fmt.Sprint(string(b), " ", result(err))
}

func ownerOf(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprint(st.Uid, ":", st.Gid)
}

func result(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for k, w := range want {
		if got[k] != w {
			t.Errorf("%s: %q, want %q", k, got[k], w)
		}
	}
}
