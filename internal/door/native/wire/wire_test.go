package wire_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// packets is a socket in memory.
type packets struct {
	in  [][]byte
	fds [][]int
}

func (p *packets) Write(b []byte, files []int) error {
	p.in, p.fds = append(p.in, bytes.Clone(b)), append(p.fds, files)
	return nil
}

func (p *packets) Read(b []byte) (int, []int, error) {
	if len(p.in) == 0 {
		return 0, nil, io.EOF
	}
	n, fds := copy(b, p.in[0]), p.fds[0]
	p.in, p.fds = p.in[1:], p.fds[1:]
	return n, fds, nil
}

func TestMessagesOfAnySize(t *testing.T) {
	for _, size := range []int{0, 1, wire.ChunkSize - 1, wire.ChunkSize, wire.ChunkSize + 1, 5*wire.ChunkSize + 3} {
		p := &packets{}
		body := bytes.Repeat([]byte("x"), size)
		if err := wire.Write(p, wire.Result, body); err != nil {
			t.Fatal(err)
		}
		m, err := wire.NewReader(p).Next()
		if err != nil || m.Kind != wire.Result || !bytes.Equal(m.Body, body) {
			t.Errorf("size %d: got kind %d, %d bytes, %v", size, m.Kind, len(m.Body), err)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	for name, in := range map[string][][]byte{
		"short packet":        {{1}},
		"interrupted message": {{byte(wire.Result), 1, 'a'}, {byte(wire.Exit), 0}},
	} {
		p := &packets{in: in, fds: make([][]int, len(in))}
		if _, err := wire.NewReader(p).Next(); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	huge := &packets{}
	if err := wire.Write(huge, wire.Result, make([]byte, wire.MaxBody+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := wire.NewReader(huge).Next(); !fault.Is(err, fault.Corrupt) {
		t.Errorf("huge: %v", err)
	}
}

// Descriptors that came with a message that is refused are closed.
func TestRefusedDescriptorsAreClosed(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	p := &packets{in: [][]byte{{byte(wire.Request), 1}, {1}}, fds: [][]int{{pipe[1]}, nil}}
	if _, err := wire.NewReader(p).Next(); err == nil {
		t.Fatal("taken")
	}
	if _, err := unix.FcntlInt(uintptr(pipe[1]), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("descriptor is still open: %v", err)
	}
}

func TestBodies(t *testing.T) {
	l := wire.Launch{Dir: "/tmp", Args: []string{"-e", "A=b", "", "busybox"}}
	if got, err := wire.DecodeLaunch(l.Encode(nil)); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("launch: %v, %v", got, err)
	}
	s := wire.StartedBody{ID: "abc", Trace: []wire.Stage{{Name: "image", At: time.Millisecond}}}
	if got, err := wire.DecodeStarted(s.Encode()); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("started: %v, %v", got, err)
	}
	e := wire.ExitBody{Code: -1, Error: "lost"}
	if got, err := wire.DecodeExit(e.Encode()); err != nil || got != e {
		t.Errorf("exit: %v, %v", got, err)
	}
}

func TestFailureKeepsItsMeaning(t *testing.T) {
	was := &fault.Error{Class: fault.NotFound, Op: "run", Object: "x", Cause: errors.New("no such file"), Hint: "look again", ExitCode: 127}
	err := wire.DecodeFailure(wire.EncodeFailure(was))
	var refused *wire.Refusal
	if !errors.As(err, &refused) || !fault.Is(err, fault.NotFound) || fault.ExitCodeOf(err) != 127 || fault.HintOf(err) != "look again" || err.Error() != was.Error() {
		t.Errorf("got %#v", err)
	}
}

func FuzzBodies(f *testing.F) {
	f.Add(wire.Launch{Dir: "/", Args: []string{"a"}}.Encode(nil))
	f.Add(wire.StartedBody{ID: "a", Trace: []wire.Stage{{Name: "b", At: 1}}}.Encode())
	f.Add(wire.EncodeFailure(errors.New("x")))
	f.Add(wire.AppendLine(nil, record.LogLine{Stream: "stderr", At: time.Unix(1, 2), Text: []byte("x\n")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := wire.DecodeLaunch(b); err == nil && !bytes.Equal(l.Encode(nil), b) {
			t.Errorf("launch %q reads back differently", b)
		}
		if s, err := wire.DecodeStarted(b); err == nil && !bytes.Equal(s.Encode(), b) {
			t.Errorf("started %q reads back differently", b)
		}
		_, _ = wire.DecodeExit(b)
		_ = wire.DecodeFailure(b)
		_, _, _ = wire.DecodeRequest(b)
		_ = wire.Lines(b, func(record.LogLine) error { return nil })
	})
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{1, 0, 1, 1}, []byte{1, 1, 2})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		r := wire.NewReader(&packets{in: [][]byte{one, two}, fds: make([][]int, 2)})
		for {
			if _, err := r.Next(); err != nil {
				return
			}
		}
	})
}
