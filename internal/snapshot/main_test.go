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

	"fief/internal/kernel/mnt"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/idmap"
)

// The test binary plays several parts: the tests, a process in a container, a
// program that is executed there, and a daemon that is killed.
const (
	partEnv     = "FIEF_TEST_PART"
	targetEnv   = "FIEF_TEST_TARGET"
	partWho     = "who"
	partChurn   = "churn"
	partCopying = "copying"

	partRootless = "rootless"
)

func TestMain(m *testing.M) {
	switch part := os.Getenv(partEnv); {
	case part == partWho:
		os.Exit(who())
	case part == partChurn:
		os.Exit(churn(os.Getenv(targetEnv)))
	case part == partRootless:
		os.Exit(rootless(os.Getenv(targetEnv)))
	case part == partCopying:
		os.Exit(copying(os.Getenv(targetEnv)))
	case part != "":
		os.Exit(inContainer(part))
	}
	os.Exit(mnttest.Main(m))
}

// parts are what a process in a container can be asked to do; the result is
// printed as JSON.
var parts = map[string]func() (any, error){
	"look": func() (any, error) { return lookAll() },
	"work": func() (any, error) { return workInside() },
	"fill": func() (any, error) { return fillInside() },
	"list": func() (any, error) { return listAll(".") },
	"host": func() (any, error) { return useHost() },
}

// inContainer is the process in a container: it makes the mounts it was given
// its root and does its part.
func inContainer(part string) int {
	do, ok := parts[part]
	if !ok {
		fmt.Fprintln(os.Stderr, "no part", part)
		return 2
	}
	err := enterRoot()
	var out any
	if err == nil {
		out, err = do()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	json.NewEncoder(os.Stdout).Encode(out)
	return 0
}

func enterRoot() error {
	target := os.Getenv(targetEnv)
	if root, ok := strings.CutPrefix(target, "mounted:"); ok {
		return errors.Join(unix.Chroot(root), unix.Chdir("/"))
	}
	for i, sub := range filepath.SplitList(target) {
		f := os.NewFile(uintptr(3+i), sub)
		if err := mnt.AttachPath(f, sub); err != nil {
			return err
		}
	}
	root := filepath.SplitList(target)[0]
	if err := unix.Chroot(root); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// inside runs a part as root of a container with this map and root.
func inside(t testing.TB, pair idmap.Pair, root *Root, part string, out any) {
	t.Helper()
	target := os.TempDir() // hidden by the root in the container's mount namespace only
	names := []string{target}
	cmd := exec.Command("/proc/self/exe")
	cmd.ExtraFiles = []*os.File{root.FD}
	for _, e := range root.Extra {
		names = append(names, target+e.Target)
		cmd.ExtraFiles = append(cmd.ExtraFiles, e.FD)
	}
	cmd.Env = []string{partEnv + "=" + part, targetEnv + "=" + strings.Join(names, ":"), "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if !pair.IsZero() {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = lines(pair.UID)
		cmd.SysProcAttr.GidMappings = lines(pair.GID)
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
		cmd.SysProcAttr.Credential = &syscall.Credential{}
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	got, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", part, err, stderr.String())
	}
	if err := json.Unmarshal(got, out); err != nil {
		t.Fatalf("%s: %v in %q", part, err, got)
	}
}

func lines(m idmap.Map) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, s := range m.Spans() {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(s.In), HostID: int(s.Out), Size: int(s.N)})
	}
	return out
}

// who prints the effective uid and whether the process may open raw sockets.
func who() int {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 1
	}
	fmt.Print(os.Geteuid(), " ", data[0].Effective>>unix.CAP_NET_RAW&1)
	return 0
}

// name returns the name of an errno, so that results compare across ways.
func name(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}
