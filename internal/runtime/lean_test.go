package runtime_test

import (
	"errors"
	"io"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/launch/launchtest"
	"fief/internal/runtime"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// lean makes the box start its containers with nothing of this process's memory.
func (b *box) lean() *box {
	b.t.Helper()
	n, err := runtime.NewLean()
	if err != nil {
		b.t.Fatal(err)
	}
	b.launch = func(encoded []byte, files []int) (runtime.Process, error) { return n.Start(encoded, files, nil) }
	return b
}

// TestLeanMemory looks at a child's memory while it waits at its gate, for a
// container and for another process in it, after this process's memory has
// grown: it has the program's text and constants and the memory of its own
// plan, and nothing else.
func TestLeanMemory(t *testing.T) {
	b := newBox(t).lean()
	grow := make([][]byte, 0, 64)
	for range 64 {
		grow = append(grow, make([]byte, 1<<20))
	}
	for i := range grow {
		grow[i][0] = 1
	}
	first := b.running(launchtest.Spec("sleep", "100"))
	b.opt.Gate = true
	container, err := compiler().Container(launchtest.Spec("true"), b.opt)
	if err != nil {
		t.Fatal(err)
	}
	exec, err := compiler().Exec(launchtest.Spec("true").Process, launchtest.Spec("true"), b.opt)
	if err != nil {
		t.Fatal(err)
	}
	joined, user := b.joined(first.PID)
	for name, p := range map[string]*plan.Plan{"container": &container, "exec": &exec, "joined": joined} {
		encoded, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		b.fds = map[string]int{"gate": int(r.Fd()), "pidfd": first.PIDFD, "ns:user": user}
		fds, done := b.files(p, 2)
		proc, err := b.launch(encoded, fds)
		done()
		if err != nil {
			t.Fatal(err)
		}
		checkMaps(t, name, readFile(t, "/proc/"+strconv.Itoa(proc.PID)+"/maps"))
		w.Write([]byte{1})
		w.Close()
		r.Close()
		if code := wait(t, proc.PID); code != 0 {
			t.Errorf("%s: exit code %d", name, code)
		}
		unix.Close(proc.PIDFD)
	}
	goruntime.KeepAlive(grow)
}

// joined makes the plan of a container in the user namespace of process with,
// and opens that; the test closes it.
func (b *box) joined(with int) (*plan.Plan, int) {
	b.t.Helper()
	s := launchtest.Spec("true")
	join(s, with, specs.UserNamespace)
	p, err := compiler().Container(s, b.opt)
	if err != nil {
		b.t.Fatal(err)
	}
	user := must(unix.Open("/proc/"+strconv.Itoa(with)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0))
	b.t.Cleanup(func() { unix.Close(user) })
	return &p, user
}

// checkMaps reads /proc/PID/maps of a child.
func checkMaps(t *testing.T, name, maps string) {
	t.Helper()
	plans := 0
	for line := range strings.Lines(maps) {
		f := strings.Fields(line)
		switch {
		case f[1] == "rw-s" && strings.Contains(line, "/dev/zero"):
			plans++
		case strings.Contains(f[1], "w"):
			t.Errorf("%s: the child has writable memory of its parent: %s", name, line)
		case f[1] == "---p": // reserved, nothing is there
		case len(f) < 6:
			t.Errorf("%s: the child has anonymous memory of its parent: %s", name, line)
		}
	}
	if plans != 1 {
		t.Errorf("%s: %d plans in\n%s", name, plans, maps)
	}
}

// TestLeanStress: a thousand starts from a process that collects garbage, maps
// and gives back memory and gets signals all the time; neither side crashes,
// and no start fails.
func TestLeanStress(t *testing.T) {
	b := newBox(t).lean()
	running := b.running(launchtest.Spec("sleep", "10000"))
	joined, user := b.joined(running.PID)
	b.fds = map[string]int{"pidfd": running.PIDFD, "ns:user": user}
	good, err := compiler().Container(launchtest.Spec("true"), b.opt)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := compiler().Container(launchtest.Spec("/nosuch"), b.opt)
	if err != nil {
		t.Fatal(err)
	}
	exec, err := compiler().Exec(launchtest.Spec("true").Process, launchtest.Spec("true"), b.opt)
	if err != nil {
		t.Fatal(err)
	}
	total := 1000
	if testing.Short() {
		total = 100
	}
	own := guiseOf(t, "/proc/self")
	quiet := disturb(t)
	defer quiet()
	before := descriptors(t)
	const workers = 4
	var work sync.WaitGroup
	for g := range workers {
		work.Go(func() {
			for i := range total / workers {
				switch (i + g) % 8 {
				case 0:
					if _, _, err := b.start(&bad); fault.ExitCodeOf(err) != 127 {
						t.Error(err)
					}
				case 1, 2:
					if _, code, err := b.start(joined); err != nil || code != 0 {
						t.Error(err, code)
					}
				case 3, 4, 5:
					if _, code, err := b.start(&exec); err != nil || code != 0 {
						t.Error(err, code)
					}
				default:
					if _, code, err := b.start(&good); err != nil || code != 0 {
						t.Error(err, code)
					}
				}
			}
		})
	}
	work.Wait()
	quiet()
	sameGuise(t, own)
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if goruntime.NumGoroutine() > 100 {
		t.Error("goroutines were left")
	}
}

// disturb keeps the process busy until its result is called, and has it look all
// the time whether it is in the guise of a child.
func disturb(t *testing.T) (end func()) {
	stop := make(chan struct{})
	space, _ := os.Readlink("/proc/self/ns/pid_for_children")
	var noise sync.WaitGroup
	for range 2 {
		noise.Go(func() {
			var keep [][]byte
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if keep = append(keep, make([]byte, 16<<10+n%7<<16)); len(keep) > 40 {
					keep = nil
					goruntime.GC()
				}
				unix.Kill(unix.Getpid(), unix.SIGURG)
				if now, err := os.Readlink("/proc/thread-self/ns/pid_for_children"); unix.Geteuid() != 0 || err != nil || now != space {
					t.Errorf("uid %d makes children in %s, %v: a goroutine came upon the guise of a fork", unix.Geteuid(), now, err)
				}
				if m, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err == nil {
					m[n%(1<<20)] = 1
					unix.Munmap(m)
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		close(stop)
		noise.Wait()
	})
}

// BenchmarkLeanStart is BenchmarkStart from a process whose memory stays its own.
func BenchmarkLeanStart(b *testing.B) {
	box := newBox(b).lean()
	measureStarts(b, box)
}

// TestLeanOthers: programs started by package os/exec are not harmed.
func TestLeanOthers(t *testing.T) {
	newBox(t).lean()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := os.StartProcess("/bin/busybox", []string{"echo", "fine"}, &os.ProcAttr{Files: []*os.File{nil, w, nil}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	state, werr := p.Wait()
	if err = errors.Join(err, werr); err != nil || string(out) != "fine\n" || !state.Success() {
		t.Errorf("%q, %v, %v", out, state, err)
	}
}

// TestMeanwhile: what is to be done beside the child is done, and its error ends
// the start.
func TestMeanwhile(t *testing.T) {
	b := newBox(t)
	p, err := compiler().Container(launchtest.Spec("sleep", "100"), b.opt)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	n, err := runtime.NewLean()
	if err != nil {
		t.Fatal(err)
	}
	fds, done := b.files(&p, 2)
	defer done()
	before := descriptors(t)
	refused := errors.New("refused")
	if _, err := n.Start(encoded, fds, func() error { return refused }); err != refused {
		t.Error(err)
	}
	if _, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("the child was left: %v", err)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
