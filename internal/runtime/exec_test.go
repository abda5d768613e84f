package runtime_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/launch/launchtest"
	"fief/internal/runtime"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// running starts a container that stays, and ends it with the test.
func (b *box) running(s *specs.Spec) runtime.Process {
	b.t.Helper()
	p, err := compiler().Container(s, b.opt)
	if err != nil {
		b.t.Fatal(err)
	}
	encoded, err := p.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	fds, done := b.files(&p, int(os.Stderr.Fd()))
	proc, err := b.launch(encoded, fds)
	done()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		unix.PidfdSendSignal(proc.PIDFD, unix.SIGKILL, nil, 0)
		wait(b.t, proc.PID)
		unix.Close(proc.PIDFD)
	})
	return proc
}

// inside runs another process in a container.
func (b *box) inside(proc runtime.Process, s *specs.Spec, p *specs.Process) (string, int, error) {
	b.t.Helper()
	made, err := compiler().Exec(p, s, b.opt)
	if err != nil {
		b.t.Fatal(err)
	}
	b.fds = map[string]int{"pidfd": proc.PIDFD}
	defer func() { b.fds = nil }()
	return b.start(&made)
}

// TestExec: a further process is where the first one is, and has what its own
// process section says.
func TestExec(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("sleep", "100")
	proc := b.running(s)
	p := launchtest.Spec("sh", "-c", "for n in user mnt pid net ipc uts cgroup; do test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) || echo other $n; done; cat /proc/self/status; pwd; ls /proc/self/fd | wc -l; exit 5").Process
	p.Cwd = "/tmp"
	out, code, err := b.inside(proc, s, p)
	if err != nil || code != 5 || strings.Contains(out, "other") || !strings.Contains(out, "/tmp\n4\n") {
		t.Errorf("%v, exit code %d: %s", err, code, out)
	}
	for name, want := range map[string]string{"CapBnd": "00000000a80425fb", "CapEff": "00000000a80425fb", "NoNewPrivs": "1", "Seccomp": "2", "SigIgn": "0000000000000000", "SigBlk": "0000000000000000"} {
		if got := field(out, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	p.Args = []string{"nosuch"}
	if _, _, err = b.inside(proc, s, p); fault.ExitCodeOf(err) != 127 || err.Error() != `exec: "nosuch": executable file not found in $PATH` {
		t.Error(err)
	}
	p.Args, p.Cwd = []string{"true"}, "/nosuch"
	if _, _, err = b.inside(proc, s, p); err == nil || err.Error() != `chdir to cwd ("/nosuch") set in config.json failed: no such file or directory` {
		t.Error(err)
	}
}

// TestExecLeavesThreadAlone: the calling process is in its own namespaces after
// an exec.
func TestExecLeavesThreadAlone(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("sleep", "100")
	proc := b.running(s)
	own := guiseOf(t, "/proc/self")
	for range 20 {
		if _, code, err := b.inside(proc, s, launchtest.Spec("true").Process); err != nil || code != 0 {
			t.Fatal(err, code)
		}
	}
	sameGuise(t, own)
}

// guiseOf is what a fork may change of a thread, whose directory in /proc is
// given; "" when the thread is gone.
func guiseOf(t *testing.T, dir string) string {
	t.Helper()
	space, err1 := os.Readlink(dir + "/ns/pid_for_children")
	status, err2 := os.ReadFile(dir + "/status")
	if err1 != nil || err2 != nil {
		return ""
	}
	for line := range strings.Lines(string(status)) {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "Uid", "CapEff", "CapPrm", "SigBlk", "Cpus_allowed":
			space += " " + strings.TrimSpace(line)
		}
	}
	return space
}

// sameGuise fails the test when a thread of this process is not what own says.
func sameGuise(t *testing.T, own string) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil || own == "" {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if now := guiseOf(t, "/proc/self/task/"+task.Name()); now != "" && now != own {
			t.Errorf("thread %s was left in a guise: %s, not %s", task.Name(), now, own)
		}
	}
}

// console starts p's plan and returns what its terminal printed.
func (b *box) console(p *plan.Plan) string {
	b.t.Helper()
	encoded, err := p.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	fds, done := b.files(p, -1)
	proc, err := runtime.Start(encoded, fds)
	done()
	var f *plan.Failure
	if errors.As(err, &f) {
		b.t.Fatal(p.ExplainFailure(f))
	}
	if err != nil {
		b.t.Fatal(err)
	}
	defer unix.Close(proc.PIDFD)
	if proc.Console < 0 {
		b.t.Fatal("no console")
	}
	master := os.NewFile(uintptr(proc.Console), "console")
	defer master.Close()
	var out bytes.Buffer
	io.Copy(&out, master) // ends with EIO when the last slave is closed
	wait(b.t, proc.PID)
	return out.String()
}

const ttyScript = "tty; stty size; for n in 0 1 2; do readlink /proc/self/fd/$n; done; ls /proc/self/fd | wc -l; echo ok > /dev/tty; id -u"

// TestTerminal: a container's terminal is of its own devpts, controlling, and
// /dev/console.
func TestTerminal(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("sh", "-c", ttyScript+"; echo console > /dev/console")
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 99}
	p, err := compiler().Container(s, b.opt)
	if err != nil {
		t.Fatal(err)
	}
	want := "/dev/pts/0\r\n33 99\r\n/dev/pts/0\r\n/dev/pts/0\r\n/dev/pts/0\r\n4\r\nok\r\n0\r\nconsole\r\n"
	if out := b.console(&p); out != want {
		t.Errorf("%q\nwant %q", out, want)
	}
}

// TestExecTerminal: so is that of a further process, as another user.
func TestExecTerminal(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("sleep", "100")
	proc := b.running(s)
	p := launchtest.Spec("sh", "-c", ttyScript).Process
	p.Terminal = true
	p.ConsoleSize = &specs.Box{Height: 44, Width: 111}
	p.User = specs.User{UID: 33, GID: 33}
	made, err := compiler().Exec(p, s, b.opt)
	if err != nil {
		t.Fatal(err)
	}
	b.fds = map[string]int{"pidfd": proc.PIDFD}
	want := "/dev/pts/0\r\n44 111\r\n/dev/pts/0\r\n/dev/pts/0\r\n/dev/pts/0\r\n4\r\nok\r\n33\r\n"
	if out := b.console(&made); out != want {
		t.Errorf("%q\nwant %q", out, want)
	}
}

// TestFakePtmx: what a container planted as /dev/pts/ptmx is not taken for one.
func TestFakePtmx(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("sleep", "100")
	s.Mounts = append(s.Mounts[:2:2], s.Mounts[3:]...) // no devpts
	os.MkdirAll(b.root+"/dev/pts", 0o755)
	proc := b.running(s)
	if _, _, err := b.inside(proc, s, launchtest.Spec("sh", "-c", "mkdir /dev/pts; touch /dev/pts/ptmx").Process); err != nil {
		t.Fatal(err)
	}
	p := launchtest.Spec("true").Process
	p.Terminal = true
	if _, _, err := b.inside(proc, s, p); err == nil || err.Error() != "cannot open terminal: no such device or address" {
		t.Error(err)
	}
}

// TestGate: with a gate Start returns before the program runs, and what is
// wrong with the program is known then.
func TestGate(t *testing.T) {
	b := newBox(t)
	b.opt.Gate = true
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b.fds = map[string]int{"gate": int(r.Fd())}
	p, err := compiler().Container(launchtest.Spec("nosuch"), b.opt)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.start(&p); fault.ExitCodeOf(err) != 127 {
		t.Error(err)
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		w.Write([]byte{1})
		w.Close()
	}()
	out, code := b.run(launchtest.Spec("sh", "-c", "ls /proc/self/fd | wc -l; exit 3"))
	if out != "4\n" || code != 3 {
		t.Errorf("%q, exit code %d", out, code)
	}
}

// TestPrepare: prepare sees the child's namespaces, and its error ends it.
func TestPrepare(t *testing.T) {
	b := newBox(t)
	p, err := compiler().Container(launchtest.Spec("true"), b.opt)
	if err != nil {
		t.Fatal(err)
	}
	encoded, _ := p.Encode()
	fds, done := b.files(&p, 2)
	defer done()
	refused := errors.New("refused")
	pid := 0
	_, err = runtime.StartWith(encoded, fds, runtime.Callbacks{Prepare: func(n int) error {
		pid = n
		if readFile(t, "/proc/"+strconv.Itoa(n)+"/uid_map") == "" {
			t.Error("no map yet")
		}
		return refused
	}})
	if !errors.Is(err, refused) {
		t.Error(err)
	}
	if unix.Kill(pid, 0) != unix.ESRCH {
		t.Error("the child is still there")
	}
}

// descriptors lists this process's open ones.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestStress starts several hundred containers from several goroutines while
// the garbage collector runs and signals arrive. No descriptor may be left.
func TestStress(t *testing.T) {
	b := newBox(t)
	good, err := compiler().Container(launchtest.Spec("true"), b.opt)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := compiler().Container(launchtest.Spec("nosuch"), b.opt)
	if err != nil {
		t.Fatal(err)
	}
	b.start(&good)
	before := descriptors(t)
	stop := make(chan struct{})
	var noise, work sync.WaitGroup
	noise.Go(func() {
		var keep [][]byte
		for {
			select {
			case <-stop:
				return
			default:
			}
			if keep = append(keep, make([]byte, 64<<10)); len(keep) > 50 {
				keep = nil
				goruntime.GC()
			}
			unix.Kill(unix.Getpid(), unix.SIGURG)
		}
	})
	each := 75
	if testing.Short() {
		each = 15
	}
	for range 4 {
		work.Go(func() {
			for i := range each {
				if i%5 == 4 {
					if _, _, err := b.start(&bad); fault.ExitCodeOf(err) != 127 {
						t.Error(err)
					}
					continue
				}
				if _, code, err := b.start(&good); err != nil || code != 0 {
					t.Error(err, code)
				}
			}
		})
	}
	work.Wait()
	close(stop)
	noise.Wait()
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
