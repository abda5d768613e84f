// Package compat drives fief-oci by the engines that run OCI runtimes: podman and
// containerd, and conmon as CRI-O calls it.
package compat

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/testenv"
)

// bound is how long one command of an engine may take on a busy machine.
const bound = 60 * time.Second

// step is one command of a session and what it has to say.
type step struct {
	line   string // of bash
	want   string // regular expression for its output, all of it when it begins with ^ and ends with $
	code   int
	repeat bool // until it is as wanted: the engine learns of it later
}

// session is an engine with one runtime.
type session struct {
	dir string   // of its own, removed with it
	env []string // of its commands
}

// run carries out the steps in order and returns what was not as wanted.
func (s session) run(steps []step) (failures []string) {
	for _, p := range steps {
		out, code := s.do(p.line)
		for end := time.Now().Add(bound / 6); p.repeat && !p.met(out, code) && time.Now().Before(end); {
			time.Sleep(100 * time.Millisecond)
			out, code = s.do(p.line)
		}
		if !p.met(out, code) {
			failures = append(failures, p.line+": exit code "+strconv.Itoa(code)+", want "+strconv.Itoa(p.code)+" and "+p.want+": "+out)
		}
	}
	return failures
}

func (p step) met(out string, code int) bool {
	return code == p.code && regexp.MustCompile("(?s)"+p.want).MatchString(strings.ReplaceAll(out, "\r", ""))
}

// do runs a line of bash. Output goes to a file: who stays would keep a pipe open.
func (s session) do(line string) (string, int) {
	out, err := os.CreateTemp(s.dir, "out")
	if err != nil {
		return err.Error(), -1
	}
	defer os.Remove(out.Name())
	defer out.Close()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, out, out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err.Error(), -1
	}
	text, _ := os.ReadFile(out.Name())
	return string(text), cmd.ProcessState.ExitCode()
}

// compare runs a session with fief-oci. What is not as wanted there, and is with
// the control, is a failure of fief-oci's; what the control cannot do here either
// is the machine's.
func compare(t *testing.T, open func(t *testing.T, runtime string) session, steps []step) {
	t.Helper()
	failures := open(t, filepath.Join(testenv.Bin(t), "fief-oci")).run(steps)
	if len(failures) == 0 {
		return
	}
	t.Log(strings.Join(failures, "\n"))
	others := map[string]string{}
	for _, name := range []string{"crun", "runc"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		control := open(t, path)
		if len(control.run(steps[:1])) > 0 {
			continue // it does not work here at all
		}
		others[name] = strings.Join(control.run(steps), "\n")
	}
	for _, f := range failures {
		line, _, _ := strings.Cut(f, ": exit code ")
		control := ""
		for name, all := range others {
			if strings.Contains(all, line+": exit code ") {
				control += " nor with " + name
			}
		}
		if len(others) > 0 && strings.Count(control, " nor ") == len(others) {
			t.Logf("not here%s: %s", control, f)
			continue
		}
		t.Error(f)
	}
}

// place makes a directory for a session and has what it leaves removed: mounts
// below it and groups of its name.
func place(t *testing.T) (dir, group string) {
	t.Helper()
	testenv.NeedRoot(t)
	dir, err := os.MkdirTemp("/tmp", "fief-compat-")
	if err != nil {
		t.Fatal(err)
	}
	group = filepath.Base(dir)
	t.Cleanup(func() {
		unmountBelow(dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		removeGroups(group)
	})
	return dir, group
}

// unmountBelow unmounts what is mounted at or below a directory, the last first.
func unmountBelow(dir string) {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	lines := strings.Split(string(text), "\n")
	slices.Reverse(lines)
	for _, l := range lines {
		if f := strings.Fields(l); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			unix.Unmount(f[4], unix.MNT_DETACH)
		}
	}
}

// removeGroups removes the groups of a name in all hierarchies, with those below.
func removeGroups(name string) {
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	for _, top := range append(tops, "/sys/fs/cgroup/"+name) {
		var all []string
		filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, p)
			}
			return nil
		})
		slices.Reverse(all)
		for end := time.Now().Add(time.Minute); ; {
			for _, p := range all {
				os.Remove(p)
			}
			if _, err := os.Stat(top); err != nil || time.Now().After(end) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// rootfs unpacks a busybox below dir.
func rootfs(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	untar := exec.Command("tar", "-C", dir, "-xf", "-")
	untar.Stdin = bytes.NewReader(testenv.BusyboxTar(t))
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
