package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/snapshot/shift"
)

// A user's ids, and among them a container's.
const (
	userBase  = 1 << 20
	userIDs   = 1 << 18
	boxBase   = 1 << 16 // in the user's namespace
	tooOld    = 3       // exit code of a process that finds the kernel so
	ofRootful = "trusted.overlay."
)

// TestRootless is the conformance suite for the way of a daemon without root,
// which may idmap nothing of the host's: a shadow, mounted in the user's namespace
// (userxattr, Linux 6.16), below a container's namespace. What a rootless daemon
// would make with its own ids is made here by root.
func TestRootless(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run("fs="+fs, func(t *testing.T) { conformRootless(t, mnttest.FileSystem(t, fs)) })
	}
}

func conformRootless(t *testing.T, dir string) {
	if unix.Setxattr(dir, "user.note", nil, 0) == unix.ENOTSUP {
		t.Skip("kernel: tmpfs has user attributes since Linux 6.6")
	}
	s := openStore(t, filepath.Join(dir, "data"), Options{Force: shift.Metacopy})
	makeLayers(t, s)
	pair := pairOf(t, userBase+boxBase)
	request := Request{Mapped: mapsOf(t, s, pair), Layers: []string{lowID, topID}, Upper: newUpper(t, s)}
	withRoot(t, s, request, func(*Root) {})
	shadows := copiesBelow(t, s.path)
	if len(shadows) != 1 {
		t.Fatal(shadows)
	}
	layers := shadows[0] + ":"
	for _, id := range []string{topID, lowID} {
		layer, err := s.LayerDir(id)
		must(t, err, giveTo(layer, userBase))
		layers += ":" + layer
		if id == topID {
			layers += ":"
		}
	}
	must(t, filepath.WalkDir(shadows[0], func(path string, _ os.DirEntry, err error) error { return errors.Join(err, forUser(path)) }))
	for _, sub := range []string{"upper", "work", "mnt"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o755), os.Chown(filepath.Join(dir, sub), userBase, userBase))
	}
	must(t, os.Chown(filepath.Join(dir, "upper"), userBase+boxBase, userBase+boxBase))
	for _, path := range append([]string{filepath.Dir(dir), dir, s.path}, above(s.path, strings.Split(strings.ReplaceAll(layers, "::", ":"), ":"))...) {
		must(t, os.Chmod(path, 0o755))
	}
	got := asUser(t, dir, layers)
	same(t, "look", got["look"], wantLook)
	same(t, "work", got["work"], wantWork)
	for path, want := range wantAfter {
		if is := got["list"][path]; !strings.HasPrefix(is, want) || is == "" != (want == "") {
			t.Errorf("%s: %q after work, want %q", path, is, want)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, "upper/owned"), &st); err != nil || st.Uid != userBase+boxBase+33 || st.Gid != userBase+boxBase+44 {
		t.Errorf("owned by %d:%d on disk, %v", st.Uid, st.Gid, err)
	}
}

// above returns the directories between root and paths below it.
func above(root string, paths []string) (out []string) {
	for _, p := range paths {
		for p = filepath.Dir(p); p != root; p = filepath.Dir(p) {
			out = append(out, p)
		}
	}
	return out
}

// giveTo moves the owners below dir to where a user's ids begin.
func giveTo(dir string, base int) error {
	seen := map[uint64]bool{}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err := errors.Join(err, unix.Lstat(path, &st)); err != nil || seen[st.Ino] {
			return err
		}
		seen[st.Ino] = true
		return os.Lchown(path, base+int(st.Uid), base+int(st.Gid))
	})
}

// forUser gives a shadow's file the attributes that userxattr asks for.
func forUser(path string) error {
	var all error
	for _, name := range []string{"redirect", "metacopy"} {
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, ofRootful+name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err == nil {
			err = unix.Lsetxattr(path, "user.overlay."+name, value[:n], 0)
		}
		all = errors.Join(all, err, unix.Lremovexattr(path, ofRootful+name))
	}
	return all
}

func spanOf(in, out, n int) []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: in, HostID: out, Size: n}}
}

// inNamespace is a process with ids of its own, in a mount namespace of its own.
func inNamespace(part, target string, ids []syscall.SysProcIDMap) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{partEnv + "=" + part, targetEnv + "=" + target, "PATH=/usr/bin:/bin"}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
	return cmd
}

// asUser has the user's root mount the layers and run a container's parts.
func asUser(t *testing.T, dir, layers string) map[string]map[string]string {
	t.Helper()
	cmd := inNamespace(partRootless, dir, spanOf(0, userBase, userIDs))
	cmd.Args = append(cmd.Args, layers)
	out, err := cmd.Output()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == tooOld {
		t.Skip("kernel: data-only layers in a user namespace came with Linux 6.16")
	}
	var got map[string]map[string]string
	must(t, err, json.Unmarshal(out, &got))
	return got
}

// rootless is the user's root.
func rootless(dir string) int {
	err := unix.Chdir(dir)
	if err == nil {
		err = unix.Mount("overlay", "mnt", "overlay", 0, "userxattr,upperdir=upper,workdir=work,lowerdir="+os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mount in a user namespace:", err)
		return tooOld
	}
	if _, err := os.Stat("mnt/plain"); errors.Is(err, unix.EPERM) {
		return tooOld
	}
	out := map[string]map[string]string{}
	for _, part := range []string{"look", "work", "list"} {
		raw, err := inNamespace(part, "mounted:mnt", spanOf(0, boxBase, 1<<16)).Output()
		got := map[string]string{}
		if err := errors.Join(err, json.Unmarshal(raw, &got)); err != nil {
			fmt.Fprintln(os.Stderr, part, err)
			return 1
		}
		out[part] = got
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return 1
	}
	return 0
}
