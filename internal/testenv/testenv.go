// Package testenv gives tests an engine of their own: the real binaries, on
// temporary state, with images made from this machine's packages. It is linked
// into tests only.
package testenv

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// startup is how long a daemon may take to answer on a busy machine.
const startup = time.Minute

// Root returns the project's root directory.
func Root() string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	panic("testenv: not inside the project")
}

// Bin returns the directory of the binaries that `make build` makes, making them
// unless FIEF_TEST_BUILT says that they
// are fresh: one build is enough for a suite, and costs little when nothing has changed.
func Bin(t testing.TB) string {
	t.Helper()
	if err := built(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(Root(), "bin")
}

var built = sync.OnceValue(func() error {
	_, err := os.Stat(filepath.Join(Root(), "bin/fiefd"))
	there := err == nil
	if there && os.Getenv("FIEF_TEST_BUILT") != "" {
		return nil
	}
	if _, err := exec.LookPath("go"); there && err != nil {
		return nil // a machine that was given what it tests
	}
	cmd := exec.Command("make", "build")
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make build: %w\n%s", err, out)
	}
	return nil
})

// NeedRoot skips a test that cannot be run by an ordinary user.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: containers are started by root here")
	}
}

// Daemon is a fiefd of a test's own.
type Daemon struct {
	Dir  string // holds data, run, ids and log
	Host string // unix://… of its docker door
	cmd  *exec.Cmd
	args []string
	bin  string        // whose fiefd and fief-mon; empty: Bin's
	wrap []string      // a command that ends by becoming its arguments
	done chan struct{} // closed when it has ended
	err  error         // then: why
}

// Start starts a daemon on a new directory; it and every container of it are
// gone when the test ends.
func Start(t testing.TB, args ...string) *Daemon {
	t.Helper()
	return StartWrapped(t, nil, args...)
}

// StartWrapped is Start with a command before the daemon's own that prepares
// its surroundings and then becomes it.
func StartWrapped(t testing.TB, wrap []string, args ...string) *Daemon {
	t.Helper()
	NeedRoot(t)
	dir, err := os.MkdirTemp("", "fief-test-")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Dir: dir, Host: "unix://" + dir + "/run/docker.sock", args: args, wrap: wrap}
	t.Cleanup(func() { d.remove(t) })
	d.Up(t)
	return d
}

// Up starts the daemon, again after a Kill.
func (d *Daemon) Up(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"--data-root", d.Dir + "/data", "--exec-root", d.Dir + "/run", "--id-registry", d.Dir + "/ids", "--debug"}, d.args...)
	bin := d.bin
	if bin == "" {
		bin = Bin(t)
		args = slices.Insert(args, 6, "--cni-conf-dir", "") // what others have put there is no network of the test's
	}
	words := append(append(slices.Clone(d.wrap), filepath.Join(bin, "fiefd")), args...)
	d.cmd = exec.Command(words[0], words[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.done = make(chan struct{})
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	for end := time.Now().Add(startup); ; time.Sleep(10 * time.Millisecond) {
		if _, _, code := d.Fief(t, "version"); code == 0 {
			return
		}
		if time.Now().After(end) || d.Ended() {
			t.Fatalf("the daemon does not answer:\n%s", d.Log())
		}
	}
}

// Args replaces the arguments of the daemon's next start.
func (d *Daemon) Args(args ...string) { d.args = args }

// Build makes the daemon's next start one of another build's; empty: this one's.
func (d *Daemon) Build(dir string) { d.bin = dir }

// Ended reports whether the daemon's process has ended.
func (d *Daemon) Ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// Log returns what the daemon logged.
func (d *Daemon) Log() string {
	b, _ := os.ReadFile(filepath.Join(d.Dir, "log"))
	return string(b)
}

// PID is the daemon's process id.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Kill ends the daemon with SIGKILL; its containers go on.
func (d *Daemon) Kill(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-d.done
}

// Stop asks the daemon to end and waits for it.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-d.done
	if d.err != nil {
		t.Errorf("the daemon ended with %v\n%s", d.err, d.Log())
	}
}

// remove ends what is left, containers first.
func (d *Daemon) remove(t testing.TB) {
	if t.Failed() {
		t.Logf("daemon's log:\n%s", tail(d.Log(), 8000))
	}
	if d.Ended() && t.Failed() {
		os.RemoveAll(d.Dir) // it may be that it cannot be started
		return
	}
	if d.Ended() {
		d.Up(t)
	}
	ids, _, _ := d.Fief(t, "ps", "-aq")
	for id := range strings.FieldsSeq(ids) {
		d.Fief(t, "rm", "-f", id)
	}
	d.Stop(t)
	if err := os.RemoveAll(d.Dir); err != nil {
		t.Errorf("cannot remove the daemon's directory: %v", err)
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// Env is the environment in which fief and docker reach the daemon.
func (d *Daemon) Env(t testing.TB) []string {
	return append(os.Environ(), "FIEF_HOST="+d.Host, "DOCKER_HOST="+d.Host, "DOCKER_CONFIG="+d.Dir+"/docker",
		"PATH="+Bin(t)+":"+os.Getenv("PATH"))
}

// Command makes a command that reaches the daemon.
func (d *Daemon) Command(t testing.TB, name string, args ...string) *exec.Cmd {
	if name == "fief" {
		name = filepath.Join(Bin(t), "fief")
	}
	cmd := exec.Command(name, args...)
	cmd.Env = d.Env(t)
	return cmd
}

// Fief runs fief against the daemon.
func (d *Daemon) Fief(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return Output(t, d.Command(t, "fief", args...))
}

// Must runs fief and fails the test when it fails; it returns the output
// without its last newline.
func (d *Daemon) Must(t testing.TB, args ...string) string {
	t.Helper()
	out, errs, code := d.Fief(t, args...)
	if code != 0 {
		t.Fatalf("fief %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return strings.TrimSuffix(out, "\n")
}

// Output runs a command to its end.
func Output(t testing.TB, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Busybox gives the daemon an image called busybox.
func (d *Daemon) Busybox(t testing.TB) {
	t.Helper()
	cmd := d.Command(t, "fief", "import", "--change", `CMD ["sh"]`, "-", "busybox")
	cmd.Stdin = bytes.NewReader(BusyboxTar(t))
	if out, errs, code := Output(t, cmd); code != 0 {
		t.Fatalf("cannot import busybox: %s%s", out, errs)
	}
}

// BusyboxTar returns a root filesystem: a static busybox with its applets,
// users root, www-data (33) and app (1000), and the usual directories.
func BusyboxTar(t testing.TB) []byte {
	t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("tool: no static busybox: " + err.Error())
	}
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "var", "var/www"} {
		add(t, w, &tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(t, w, &tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(t, w, &tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, bin)
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			add(t, w, &tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	add(t, w, file("etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"))
	add(t, w, file("etc/group"), []byte("root:x:0:\ntty:x:5:\nwww-data:x:33:\napp:x:1000:\nstaff:x:50:app\nnogroup:x:65534:\n"))
	www := file("var/www/index.html")
	www.Uid, www.Gid = 33, 33
	add(t, w, www, []byte("hello\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name string) *tar.Header {
	return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}
}

func add(t testing.TB, w *tar.Writer, h *tar.Header, content []byte) {
	t.Helper()
	h.Size, h.ModTime = int64(len(content)), time.Unix(1_700_000_000, 0)
	if err := w.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
}
