package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	insideVariable = "FIEF_OCI_SUITE_PROGRAM"
	hideVariable   = "FIEF_OCI_SUITE_HIDE" // a mount that the program is not to see
	module         = "github.com/opencontainers/runtime-tools"
	checker        = "runtimetest" // what the programs run in their containers
)

// suite is the built programs and a directory to run them in.
type suite struct {
	bin, work string
	programs  []string // sorted
}

// buildSuite builds the programs of the module test/oci/suite pins, into bin/oci,
// where the next run finds them.
func buildSuite() (*suite, error) {
	bin, err := filepath.Abs("bin/oci")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, err
	}
	source, err := inSuite("list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return nil, err
	}
	// A dependency's package main is a tool of the module that requires it.
	if _, err := inSuite("build", "-trimpath", "-ldflags", "-s -w", "-o", bin+"/", "tool"); err != nil {
		return nil, err
	}
	s := &suite{bin: bin}
	entries, err := os.ReadDir(filepath.Join(source, "validation"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && e.Name() != "util" {
			s.programs = append(s.programs, e.Name())
		}
	}
	slices.Sort(s.programs)
	if s.work, err = os.MkdirTemp("", "fief-oci-suite-"); err != nil {
		return nil, err
	}
	// The programs look for both in their working directory.
	rootfs := "rootfs-" + goruntime.GOARCH + ".tar.gz"
	if err := os.Symlink(filepath.Join(source, rootfs), filepath.Join(s.work, rootfs)); err != nil {
		return nil, err
	}
	if err := copyFile(filepath.Join(bin, checker), filepath.Join(s.work, checker)); err != nil { // they would copy a link
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(s.work, "tmp"), 0o711); err != nil {
		return nil, err
	}
	return s, os.Chmod(s.work, 0o711) // containers' ids pass through
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

func (s *suite) close() { os.RemoveAll(s.work) }

// inSuite runs the go command in the module that pins the suite.
func inSuite(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = "test/oci/suite"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // the checker runs in containers without libraries
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// run runs a program against a runtime and removes what it leaves.
func (s *suite) run(end context.Context, name, runtime string, timeout time.Duration) (verdict, string) {
	ctx, cancel := context.WithTimeout(end, timeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.work, &out, &errs
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "RUNTIME=" + runtime, "TMPDIR=" + filepath.Join(s.work, "tmp"),
		insideVariable + "=" + filepath.Join(s.bin, name)}
	if filepath.Base(runtime) == "crun" { // it refuses a host whose v2 hierarchy has controllers beside v1's
		cmd.Env = append(cmd.Env, hideVariable+"=/sys/fs/cgroup/unified")
	}
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	s.clean()
	trouble := ""
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		trouble = "timeout"
	case errors.As(err, &exit):
		trouble = fmt.Sprintf("exit code %d", exit.ExitCode())
	case err != nil:
		trouble = err.Error()
	}
	return judge(out.String(), trouble), out.String() + "\n# stderr\n" + errs.String()
}

// clean removes the bundles and cgroups that programs leave: the suite's own
// names, and the ids it makes up where a runtime takes them for names. Other
// groups below fief-oci are somebody else's, perhaps about to be entered.
func (s *suite) clean() {
	bundles, _ := filepath.Glob(filepath.Join(s.work, "tmp", "*"))
	for _, b := range bundles {
		os.RemoveAll(b)
	}
	roots, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, root := range append(roots, "/sys/fs/cgroup") {
		for _, pattern := range []string{"cgrouptest", "testdir", someID, "fief-oci/" + someID} {
			found, _ := filepath.Glob(filepath.Join(root, pattern))
			for _, dir := range found {
				removeGroup(dir)
			}
		}
		unix.Rmdir(filepath.Join(root, "fief-oci"))
	}
}

// someID matches the ids of containers that the suite makes.
const someID = "????????-????-????-????-????????????"

// removeGroup removes a cgroup and those below it, the lowest first; one that
// has processes stays.
func removeGroup(dir string) {
	var dirs []string
	filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, name)
		}
		return nil
	})
	slices.Reverse(dirs)
	for _, d := range dirs {
		unix.Rmdir(d)
	}
}

// older stands before crun and makes the ociVersion of a bundle one that it knows:
// Debian 12's refuses all but 1.0.
const older = `#!/bin/sh
bundle=.
for word; do
	if [ "$last" = --bundle ]; then bundle=$word; fi
	last=$word
done
if [ "$1" = create ] && [ -f "$bundle/config.json" ]; then
	sed -i 's/"ociVersion": *"[^"]*"/"ociVersion": "1.0.2"/' "$bundle/config.json"
fi
exec %s "$@"
`

// inside is the first process of a program's namespaces: it gives them what they
// need, runs the program, and takes in the processes that containers leave.
func inside(program string) int {
	os.Unsetenv(insideVariable)
	for _, step := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := unix.Mount(step.source, step.target, step.kind, step.flags, ""); err != nil {
			fmt.Fprintln(os.Stderr, "mount", step.target, err)
			return 125
		}
	}
	if hide := os.Getenv(hideVariable); hide != "" {
		unix.Unmount(hide, unix.MNT_DETACH)
		os.Unsetenv(hideVariable)
	}
	cmd := exec.Command(program)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "wait:", err)
			return 125
		}
		if pid != cmd.Process.Pid {
			continue
		}
		if status.Signaled() {
			return 128 + int(status.Signal())
		}
		return status.ExitStatus()
	}
}
