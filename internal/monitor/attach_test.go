package monitor

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/wire"
)

// socket returns the two ends of a stream socket; the second is for Alive.
func socket(t *testing.T) (ours, alive *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, alive = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "alive")
	t.Cleanup(func() { ours.Close(); alive.Close() })
	return ours, alive
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// parted waits for the end of an attachment and returns the reason it gave.
func parted(t *testing.T, ours *os.File) string {
	t.Helper()
	ours.SetReadDeadline(time.Now().Add(patience))
	reason, err := io.ReadAll(ours)
	if err != nil {
		t.Fatal(err)
	}
	return string(reason)
}

func TestStdinReachesAllAndCloses(t *testing.T) {
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	ours, alive := socket(t)
	b := run(t, take(t), func(r *Run) {
		r.OpenStdin, r.StdinOnce = true, true
		r.Attach = []Attach{{Stdin: inR, Stdout: outW, Alive: alive}}
	}, "", "/bin/cat")
	inR.Close()
	outW.Close()
	alive.Close()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB: more than all pipes hold
	go func() { inW.Write(want); inW.Close() }()
	got, _ := io.ReadAll(outR)
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back of %d", len(got), len(want))
	}
	if e := exit(t, b.Monitor); e.Code != 0 {
		t.Errorf("%+v", e)
	}
	if why := parted(t, ours); why != string(wire.PartEnded) {
		t.Errorf("parted with %q", why)
	}
}

func TestStdinStaysOpenWithoutOnce(t *testing.T) {
	b := run(t, take(t), func(r *Run) { r.OpenStdin = true }, "", "/bin/cat")
	for _, word := range []string{"one\n", "two\n"} { // two clients, one after the other
		inR, inW := pipe(t)
		outR, outW := pipe(t)
		if err := b.Attach(ctx(t), "", Attach{Stdin: inR, Stdout: outW}); err != nil {
			t.Fatal(err)
		}
		inW.WriteString(word)
		inW.Close()
		if line, err := bufio.NewReader(outR).ReadString('\n'); line != word {
			t.Fatalf("%q, %v", line, err)
		}
	}
	b.Signal(ctx(t), "", syscall.SIGKILL)
	exit(t, b.Monitor)
}

func TestNoStdinIsDevNull(t *testing.T) {
	inR, _ := pipe(t)
	b := run(t, take(t), func(r *Run) { r.Attach = []Attach{{Stdin: inR}} }, "", "/bin/cat")
	if e := exit(t, b.Monitor); e.Code != 0 {
		t.Errorf("%+v", e)
	}
}

// TestDeadClient: when Alive ends, the client's stdin is read no more and its
// streams are closed; the container does not notice.
func TestDeadClient(t *testing.T) {
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	ours, alive := socket(t)
	b := run(t, take(t), func(r *Run) {
		r.OpenStdin = true
		r.Attach = []Attach{{Stdin: inR, Stdout: outW, Alive: alive}}
	}, "", "/bin/cat")
	alive.Close()
	outW.Close()
	ours.Close() // the client is killed; its terminal (inR) lives on
	within(t, "end of the client's stream", func() { io.ReadAll(outR) })
	inW.WriteString("not for the container\n")
	time.Sleep(50 * time.Millisecond)
	var kept [100]byte
	inR.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := inR.Read(kept[:]); n != 22 {
		t.Errorf("read %d bytes, %v: the monitor took the dead client's input", n, err)
	}
	if st, err := b.State(ctx(t)); err != nil || !st.Running {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestClientStopsReading: a client that closes its stream ends its attachment,
// not the container.
func TestClientStopsReading(t *testing.T) {
	outR, outW := pipe(t)
	ours, alive := socket(t)
	b := run(t, take(t), func(r *Run) { r.Attach = []Attach{{Stdout: outW, Alive: alive}} }, "", shell("while :; do echo x || exit 1; sleep 0.01; done")...)
	outW.Close()
	alive.Close()
	bufio.NewReader(outR).ReadString('\n')
	outR.Close()
	if why := parted(t, ours); why != string(wire.PartBroken) {
		t.Errorf("parted with %q", why)
	}
	time.Sleep(50 * time.Millisecond)
	if st, err := b.State(ctx(t)); err != nil || !st.Running {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestSlowReader: a client that does not read holds the container back, loses
// nothing, and does not keep what was read from the log or from others.
func TestSlowReader(t *testing.T) {
	slowR, slowW := pipe(t)
	fastR, fastW := pipe(t)
	const lines = 60000 // 350 KB: more than the pipes and the monitor keep
	b := run(t, take(t), func(r *Run) {
		r.Attach = []Attach{{Stdout: slowW}, {Stdout: fastW}}
	}, "", "/usr/bin/seq", "1", "60000")
	slowW.Close()
	fastW.Close()
	fast := make(chan string, 1)
	go func() { got, _ := io.ReadAll(fastR); fast <- string(got) }()
	logged := func() int {
		log, _ := os.ReadFile(b.log)
		return bytes.Count(log, []byte("\n"))
	}
	within(t, "ten thousand lines in the log while one client is slow", func() {
		for logged() < 10000 {
			time.Sleep(10 * time.Millisecond)
		}
	})
	select {
	case e := <-b.Exits():
		t.Fatalf("%+v although a client reads nothing", e)
	case <-time.After(200 * time.Millisecond):
	}
	slow, _ := io.ReadAll(slowR)
	if strings.Count(string(slow), "\n") != lines || <-fast != string(slow) {
		t.Errorf("slow client has %d lines", strings.Count(string(slow), "\n"))
	}
	exit(t, b.Monitor)
}

// TestStuckClientDoesNotHoldTheExit: the news of the end waits only a moment
// for a client that does not read; the client still gets the rest.
func TestStuckClientDoesNotHoldTheExit(t *testing.T) {
	r, w := pipe(t)
	ours, alive := socket(t)
	b := run(t, take(t), func(r *Run) { r.Attach = []Attach{{Stdout: w, Alive: alive}} }, "", "/usr/bin/seq", "1", "20000")
	w.Close()
	alive.Close()
	exit(t, b.Monitor)
	if log, _ := os.ReadFile(b.log); bytes.Count(log, []byte("\n")) != 20000 {
		t.Errorf("log has %d lines at the exit", bytes.Count(log, []byte("\n")))
	}
	got, _ := io.ReadAll(r)
	if n := bytes.Count(got, []byte("\n")); n != 20000 {
		t.Errorf("client got %d lines", n)
	}
	if why := parted(t, ours); why != string(wire.PartEnded) {
		t.Errorf("parted with %q", why)
	}
	within(t, "end of the monitor", func() { <-b.Gone() })
}

// TestOtherKindsOfStdio: sockets, and files whose offset the client shares.
func TestOtherKindsOfStdio(t *testing.T) {
	in, _ := os.CreateTemp(t.TempDir(), "in")
	out, _ := os.CreateTemp(t.TempDir(), "out")
	in.WriteString("from a file\n")
	in.Seek(0, io.SeekStart)
	out.WriteString("before\n")
	ours, theirs := socket(t)
	b := run(t, take(t), func(r *Run) {
		r.OpenStdin, r.StdinOnce = true, true
		r.Attach = []Attach{{Stdin: in, Stdout: out}, {Stdout: theirs}}
	}, "", "/bin/cat")
	theirs.Close()
	exit(t, b.Monitor)
	out.WriteString("after\n")
	got, _ := os.ReadFile(out.Name())
	if string(got) != "before\nfrom a file\nafter\n" {
		t.Errorf("file has %q", got)
	}
	if got := parted(t, ours); got != "from a file\n" {
		t.Errorf("socket got %q", got)
	}
}

// TestSharedFlagsStay: the client's shell shares the open file descriptions.
func TestSharedFlagsStay(t *testing.T) {
	var fds [2]int
	unix.Pipe2(fds[:], unix.O_CLOEXEC)
	w := os.NewFile(uintptr(fds[1]), "w")
	sock, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	s := os.NewFile(uintptr(sock[1]), "s")
	b := run(t, take(t), func(r *Run) { r.Attach = []Attach{{Stdout: w, Stderr: s}} }, "", shell("echo a; echo b >&2; sleep 0.1")...)
	for _, fd := range []int{fds[1], sock[1]} {
		if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK != 0 {
			t.Error("the client's descriptor was made non-blocking")
		}
	}
	exit(t, b.Monitor)
	w.Close()
	s.Close()
	unix.Close(fds[0])
	unix.Close(sock[0])
}
