package runtime_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/launch"
	"fief/internal/launch/child"
	"fief/internal/launch/launchtest"
	"fief/internal/runtime"
	"fief/internal/words/plan"
)

// need skips what cannot be done here.
func need(t testing.TB) {
	t.Helper()
	if !child.Available {
		t.Skip("race: the forked child does not live under the race detector")
	}
	if os.Geteuid() != 0 {
		t.Skip("root: containers are started")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("tool: busybox-static")
	}
}

// rootfs makes a directory with a static busybox and its links.
func rootfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for p := dir; p != "/"; p = filepath.Dir(p) { // container ids must pass through
		if st, err := os.Stat(p); err == nil && st.Mode()&0o001 == 0 {
			if err := os.Chmod(p, st.Mode()|0o055); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "root", "data"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "ls", "id", "true", "false", "stat", "sleep", "hostname", "readlink", "test", "grep", "mount", "tty", "stty", "ip", "touch", "echo", "pwd", "wc", "env", "kill", "mkdir", "ps", "dd", "rmdir"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	filepath.Walk(dir, func(p string, _ os.FileInfo, _ error) error {
		return os.Lchown(p, launchtest.Base, launchtest.Base)
	})
	return dir
}

// clone returns a detached mount of path; the caller closes it.
func clone(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// box is how a test starts containers.
type box struct {
	t     testing.TB
	root  string
	opt   launch.Options
	binds map[string]string // descriptor name → source
	fds   map[string]int    // descriptor name → descriptor, which stays the test's

	launch func([]byte, []int) (runtime.Process, error)
}

func newBox(t testing.TB) *box {
	need(t)
	return &box{t: t, root: rootfs(t), opt: launch.Options{ID: "test"}, launch: runtime.Start}
}

func compiler() *launch.Compiler {
	return &launch.Compiler{Filter: launchtest.Filter, Key: launchtest.Key}
}

// files makes the descriptors a plan names, and what closes them.
func (b *box) files(p *plan.Plan, out int) (fds []int, done func()) {
	var own []int
	for _, name := range p.Files {
		fd, given := b.fds[name]
		switch {
		case given:
		case name == "rootfs":
			fd = clone(b.t, b.root)
			own = append(own, fd)
		case name == "stdin":
			fd = must(unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0))
			own = append(own, fd)
		case name == "stdout" || name == "stderr":
			fd = out
		default:
			fd = clone(b.t, b.binds[name])
			own = append(own, fd)
		}
		fds = append(fds, fd)
	}
	return fds, func() {
		for _, fd := range own {
			unix.Close(fd)
		}
	}
}

func must(fd int, err error) int {
	if err != nil {
		panic(err)
	}
	return fd
}

// run starts the container, waits for its end and returns its output and exit
// code.
func (b *box) run(s *specs.Spec) (string, int) {
	b.t.Helper()
	p, err := compiler().Container(s, b.opt)
	if err != nil {
		b.t.Fatal(err)
	}
	out, code, err := b.start(&p)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, p.String())
	}
	return out, code
}

// start carries out a plan to its program's end.
func (b *box) start(p *plan.Plan) (string, int, error) {
	b.t.Helper()
	encoded, err := p.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	fds, done := b.files(p, int(w.Fd()))
	proc, err := b.launch(encoded, fds)
	done()
	w.Close()
	var f *plan.Failure
	if errors.As(err, &f) {
		return "", 0, p.ExplainFailure(f)
	}
	if err != nil {
		return "", 0, err
	}
	defer unix.Close(proc.PIDFD)
	text, _ := io.ReadAll(r)
	return string(text), wait(b.t, proc.PID), nil
}

func wait(t testing.TB, pid int) int {
	t.Helper()
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if status.Signaled() {
			return 128 + int(status.Signal())
		}
		return status.ExitStatus()
	}
}

func TestHello(t *testing.T) {
	b := newBox(t)
	out, code := b.run(launchtest.Spec("sh", "-c", "echo hello; exit 7"))
	if out != "hello\n" || code != 7 {
		t.Fatalf("%q, exit code %d", out, code)
	}
}
