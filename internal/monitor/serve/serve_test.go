package serve

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzDetachKeys: however input is cut, what is passed on is what comes before
// the first occurrence of the keys, or everything.
func FuzzDetachKeys(f *testing.F) {
	f.Add([]byte("\x10\x11"), []byte("ab\x10c\x10\x11x"), byte(1))
	f.Add([]byte("aab"), []byte("aaab"), byte(2))
	f.Add([]byte(""), []byte("abc"), byte(3))
	f.Fuzz(func(t *testing.T, keys, input []byte, step byte) {
		if step == 0 {
			return
		}
		want, _, cutoff := bytes.Cut(input, keys)
		if len(keys) == 0 {
			want, cutoff = input, false
		}
		d := detachKeys{keys: keys}
		var got []byte
		found := false
		for in := input; len(in) > 0 && !found; {
			n := min(int(step), len(in))
			var pass []byte
			pass, found = d.feed(in[:n:n])
			got = append(got, pass...)
			in = in[n:]
		}
		if !found {
			got = append(got, d.rest()...)
		}
		if found != cutoff || !bytes.Equal(got, want) {
			t.Errorf("keys %q in %q by %d: passed %q, found %v", keys, input, step, got, found)
		}
	})
}

// TestPolledEndpoint: a blocking pipe that cannot be opened again is written to
// and read from without ever hanging, and Close ends a wait.
func TestPolledEndpoint(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	w, err := newPolled(fds[1], unix.S_IFIFO)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newPolled(fds[0], unix.S_IFIFO)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 100<<10)
	n, err := w.TryWrite(data)
	if err != nil || n < 60<<10 || n == len(data) {
		t.Errorf("wrote %d bytes at once, %v", n, err)
	}
	done := make(chan error, 1)
	go func() { _, err := w.Write(data); done <- err }()
	buf := make([]byte, 4096)
	for range 5 {
		if _, err := r.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if err := <-done; err != os.ErrClosed {
		t.Errorf("write after close: %v", err)
	}
	rest := 0
	for {
		n, err := r.Read(data)
		rest += n
		if err != nil {
			if err != io.EOF {
				t.Error(err)
			}
			break
		}
	}
	if total := rest + 5*4096; total < n {
		t.Errorf("%d bytes arrived of more than %d", total, n)
	}
	r.Close()
	if _, err := r.Read(buf); err != os.ErrClosed {
		t.Errorf("read after close: %v", err)
	}
}

func TestCloseWakesAReader(t *testing.T) {
	var fds [2]int
	unix.Pipe2(fds[:], unix.O_CLOEXEC)
	defer unix.Close(fds[1])
	r, err := newPolled(fds[0], unix.S_IFIFO)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := r.Read(make([]byte, 1)); done <- err }()
	time.Sleep(20 * time.Millisecond)
	r.Close()
	select {
	case err := <-done:
		if err != os.ErrClosed {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the reader still waits")
	}
}
