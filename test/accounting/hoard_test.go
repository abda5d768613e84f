// Package accounting lets containers use up what the kernel counts for a user,
// and looks at what is left for others.
package accounting

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/testenv"
)

// patience is how long a container may take to use up a resource, and the
// kernel to give it back, on a busy machine.
const patience = time.Minute

// The limits of the daemon, soft and hard, which containers inherit: small, so
// that they are soon reached. It cannot raise them, on any machine.
const (
	queueBytes = 819200
	signals    = 100
	lockBytes  = 4 << 20
)

func capped() []string {
	return []string{"setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", "prlimit", fmt.Sprintf("--msgqueue=%d", queueBytes),
		fmt.Sprintf("--sigpending=%d", signals), fmt.Sprintf("--memlock=%d", lockBytes)}
}

// engine is a daemon with an image of the program hoard alone.
type engine struct {
	*testenv.Daemon
	program string
}

func start(t *testing.T, wrap []string, args ...string) *engine {
	t.Helper()
	testenv.NeedRoot(t)
	e := &engine{program: build(t)}
	e.Daemon = testenv.StartWrapped(t, wrap, args...)
	cmd := e.Command(t, "fief", "import", "--change", `ENTRYPOINT ["/hoard"]`, "-", "hoard")
	cmd.Stdin = bytes.NewReader(image(t, e.program))
	if out, errs, code := testenv.Output(t, cmd); code != 0 {
		t.Fatalf("cannot import the image: %s%s", out, errs)
	}
	return e
}

// build makes the program, static, where any user may run it. Where there is no
// Go, FIEF_HOARD names one made before.
func build(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("FIEF_HOARD"); path != "" {
		return path
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("tool: go is not here to build the program")
	}
	dir, err := os.MkdirTemp("", "fief-hoard-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "hoard")
	cmd := exec.Command("go", "build", "-o", path, "./hoard")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func image(t *testing.T, program string) []byte {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err = w.WriteHeader(&tar.Header{Name: "hoard", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(b))})
	if err == nil {
		_, err = w.Write(b)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// options are what every container of these tests is run with: Docker's filter
// forbids keys and fanotify.
func options(mapping []string, more ...string) []string {
	opts := append([]string{"--network", "none", "--security-opt", "seccomp=unconfined"}, mapping...)
	return append(opts, more...)
}

// hoard runs a container that uses up a resource and keeps it, and returns how
// much it got and what the kernel said to the next.
func (e *engine) hoard(t *testing.T, name string, r resource, mapping []string) (int, string) {
	t.Helper()
	args := append([]string{"run", "-d", "--name", name}, options(mapping, r.options...)...)
	e.Must(t, append(args, "hoard", r.name)...)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		log := e.Must(t, "logs", name)
		if n, why, ok := parse(log); ok {
			return n, why
		}
		if status := e.Must(t, "inspect", "-f", "{{.State.Status}}", name); status != "running" || time.Now().After(end) {
			t.Fatalf("%s of %s is %s: %s", name, r.name, status, log)
		}
	}
}

// parse reads hoard's line: "got 3 keys: disk quota exceeded".
func parse(line string) (n int, why string, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), "got ")
	if !ok {
		return 0, "", false
	}
	number, rest, _ := strings.Cut(rest, " ")
	_, why, ok = strings.Cut(rest, ": ")
	n, err := strconv.Atoi(number)
	return n, why, ok && err == nil
}

// outside takes three of a resource on the host, as a user there.
func (e *engine) outside(t *testing.T, r resource, uid uint32) {
	t.Helper()
	cmd := exec.Command(e.program, "-quit", r.name, "3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, errs, code := testenv.Output(t, cmd)
	if n, why, ok := parse(out); !ok || n != 3 {
		t.Errorf("user %d of the host can have %d %s: %s (exit %d %s)", uid, n, r.name, why, code, errs)
	}
}

// resource is something the kernel counts for a user.
type resource struct {
	name    string
	full    int      // how much a container can have
	slack   int      // how much less it may be: what the program itself and its start take
	refusal string   // how the kernel says no
	options []string // that make it so much
	roomy   bool     // only the container's own limit counts, so that containers with the same ids do not share it
}

// resources lists those that this machine has, a skip for those it has not.
func resources(t *testing.T) []resource {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Locked memory is counted in pages, and what is charged to the creator of the
	// namespace is compared with its limit in bytes (user_shm_lock in mm/mlock.c,
	// inc_rlimit_ucounts in kernel/ucount.c). Processes have no cap there when the
	// creator's real uid is root's (enforced_nproc_rlimit in kernel/user_namespace.c).
	files := []string{"--ulimit", fmt.Sprintf("nofile=%d", min(limit.Max, 20000))}
	return []resource{
		{name: "inotify-instances", full: sysctl(t, "fs/inotify/max_user_instances"), refusal: "too many open files", options: files},
		{name: "inotify-watches", full: sysctl(t, "fs/inotify/max_user_watches"), refusal: "no space left on device", options: files},
		{name: "fanotify-groups", full: sysctl(t, "fs/fanotify/max_user_groups"), refusal: "too many open files", options: files},
		{name: "mqueue", full: queueBytes / 8248, slack: 1, refusal: "too many open files"},
		{name: "sigpending", full: signals, refusal: "resource temporarily unavailable"},
		{name: "memlock", full: lockBytes / (64 << 10), refusal: "cannot allocate memory", roomy: true},
		{name: "nproc", full: 150, slack: 15, refusal: "resource temporarily unavailable", options: []string{"--ulimit", "nproc=150"}, roomy: true},
		{name: "keys", full: sysctl(t, "kernel/keys/maxkeys"), slack: 6, refusal: "disk quota exceeded"},
		{name: "key-bytes", full: sysctl(t, "kernel/keys/maxbytes") / (1000 + len("hoard-000000") + 1), slack: 2, refusal: "disk quota exceeded"},
	}
}

// sysctl reads a number; 0 when this kernel does not have it.
func sysctl(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// check skips a resource that this kernel does not count, or of which it has
// more than a test should use up.
func (r resource) check(t *testing.T) {
	t.Helper()
	most := 10_000
	if r.name == "inotify-watches" {
		most = 300_000 // of some 100 bytes
	}
	switch {
	case r.full == 0:
		t.Skip("kernel: has no limit of " + r.name)
	case r.full > most:
		t.Skipf("kernel: is set to allow %d %s, more than a test should take", r.full, r.name)
	}
}

// wantFull fails unless n is everything, and the kernel then refused.
func (r resource) wantFull(t *testing.T, who string, n int, why string) {
	t.Helper()
	if n > r.full || n < r.full-r.slack || why != r.refusal {
		t.Errorf("%s got %d of %d %s: %s", who, n, r.full, r.name, why)
	}
}
