package wire

import (
	"bytes"
	"io"
	"os"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

func samples() []Message {
	proc := Proc{TTY: true, OpenStdin: true, StdinOnce: true, Rows: 24, Cols: 80, Plan: []byte("plan\x00"),
		Slots:  []Slot{SlotFile, SlotStdin, SlotStdout, SlotStderr, SlotPIDFD},
		Attach: []Attachment{{Has: HasStdout | HasAlive, Keys: []byte{16, 17}}, {Has: HasStdin}}}
	return []Message{
		&Hello{Version: 1, Label: "l", PID: 7, ID: "id", Refused: true, Plans: 7}, &Hello{Version: 1, Label: "before plans had numbers"},
		&Adopt{ID: "id", Dir: "/d", PID: 7, Started: 1 << 60},
		&Start{ID: "id", Dir: "/d", Log: Log{Driver: "json-file", Path: "/l", MaxSize: -1, MaxFile: 3,
			Compress: true, Buffer: 1 << 20, Attrs: `{"a":"b"}`, Fields: []string{"A=b", ""}}, Proc: proc,
			Net: Net{Outside: []byte{1}, Spaces: []uint32{4, 8}, Settings: []string{"a=b"}, Inside: []byte{2}, Devices: []NetDevice{{Name: "eth0", At: []uint32{7}}}, Port: 1 << 15, Wait: true}},
		&Exec{ID: "e", Proc: proc}, &Attach{Target: "e", Client: proc.Attach[0]}, &Signal{Target: "", Number: 15},
		&Resize{Target: "e", Rows: 1, Cols: 65535}, &Query{}, &Ack{Number: 1 << 60},
		&Done{Kind: KindFault, PID: 1, Step: -1, Call: 2, Errno: 13, Class: 4, Text: "t", Hint: "h"},
		&Status{ID: "id", PID: 9, Started: 5, Execs: []ExecStatus{{ID: "a", PID: 3}, {ID: "b", PID: 4}}},
		&Health{Interval: 1, Timeout: 2, StartPeriod: 3, StartInterval: 4, Retries: 5, Proc: Proc{Plan: []byte("p"), Slots: []Slot{SlotPIDFD}}},
		&CheckNow{}, &Checked{State: Unhealthy, Streak: 7, Results: []Check{{Start: 1, End: 2, Code: -1, Output: "o"}}},
		&Exited{Number: 3, Target: "e", Code: -5, Signal: 9, At: 1 << 62},
	}
}

func TestThereAndBack(t *testing.T) {
	for _, m := range samples() {
		got, err := Decode(Append(nil, m))
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%T: %+v, %v", m, got, err)
		}
	}
}

// TestOtherBuilds: what a newer build adds does no harm.
func TestOtherBuilds(t *testing.T) {
	longer := append(Append(nil, &Exited{Number: 3, Target: "e"}), 1, 2, 3)
	if m, err := Decode(longer); err != nil || m.(*Exited).Number != 3 {
		t.Errorf("%+v, %v", m, err)
	}
	a, b := pair(t)
	if m, err := Decode([]byte{200, 1, 2}); err != nil || m.(*Other).Code != 200 {
		t.Errorf("%+v, %v", m, err)
	}
	before := openFiles(t)
	r, w, _ := os.Pipe()
	a.Send(9, &Other{Code: 200}, []int{int(r.Fd())})
	if seq, m, files, err := b.Recv(); err != nil || seq != 9 || len(files) != 0 || m.(*Other).Code != 200 {
		t.Errorf("%+v, %v", m, err)
	}
	r.Close()
	w.Close()
	if now := openFiles(t); now != before {
		t.Errorf("%d descriptors open, %d before", now, before)
	}
}

// FuzzDecode: whatever arrives, decoding ends, and what decodes begins with
// exactly this encoding.
func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		f.Add(Append(nil, m))
	}
	f.Add([]byte{byte(OpStatus), 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if !fault.Is(err, fault.Corrupt) {
				t.Errorf("error of class %v", fault.ClassOf(err))
			}
			return
		}
		if again := Append(nil, m); !bytes.HasPrefix(b, again) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, m, again)
		}
		Files(m)
	})
}

func FuzzParseExit(f *testing.F) {
	f.Add([]byte("137 9 1700000000000000000\n"))
	f.Add([]byte("1 2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		code, signal, at, err := ParseExit(b)
		if err != nil {
			return
		}
		e := &Exited{Code: int32(code), Signal: uint32(signal), At: at.UnixNano()}
		c, s, a, err := ParseExit(FormatExit(e))
		if err != nil || c != code || s != signal || !a.Equal(at) {
			t.Errorf("%q: %d %d %v %v", b, c, s, a, err)
		}
	})
}

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, _ := unix.Dup(int(f.Fd()))
	f.Close()
	if b, err = NewConn(fd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestLongMessagesAndDescriptors(t *testing.T) {
	a, b := pair(t)
	for _, size := range []int{0, 1000, maxInline - 100, maxInline + 1, 150 << 10, 8 << 20} {
		m := &Exec{ID: "x", Proc: Proc{Plan: bytes.Repeat([]byte{7}, size), Slots: []Slot{SlotFile, SlotStdin, SlotFile}}}
		if size == 0 {
			m.Proc.Plan = nil
		}
		r, w, _ := os.Pipe()
		if err := a.Send(5, m, []int{int(r.Fd()), int(w.Fd())}); err != nil {
			t.Fatal(err)
		}
		r.Close()
		w.Close()
		seq, got, files, err := b.Recv()
		if err != nil || seq != 5 || !reflect.DeepEqual(got, m) || len(files) != 2 {
			t.Fatalf("%d bytes: seq %d, %d files, %v", size, seq, len(files), err)
		}
		if _, err := unix.Write(files[1], []byte("!")); err != nil {
			t.Error(err)
		}
		var p [1]byte
		if n, _ := unix.Read(files[0], p[:]); n != 1 || p[0] != '!' {
			t.Error("descriptors came in another order")
		}
		for _, fd := range files {
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Error("a received descriptor is inherited")
			}
		}
		CloseAll(files)
	}
}

func TestWrongNumberOfDescriptors(t *testing.T) {
	a, b := pair(t)
	before := openFiles(t)
	r, w, _ := os.Pipe()
	a.Send(1, &Query{}, []int{int(r.Fd()), int(w.Fd())})
	if _, _, _, err := b.Recv(); !fault.Is(err, fault.Corrupt) {
		t.Errorf("surplus: %v", err)
	}
	a.Send(1, &Attach{Client: Attachment{Has: HasStdin | HasStdout}}, []int{int(r.Fd())})
	if _, _, _, err := b.Recv(); !fault.Is(err, fault.Corrupt) {
		t.Errorf("missing: %v", err)
	}
	a.write([]byte("what is this"), nil)
	if _, _, _, err := b.Recv(); !fault.Is(err, fault.Corrupt) {
		t.Errorf("noise: %v", err)
	}
	a.write(make([]byte, bufSize+10), nil)
	if _, _, _, err := b.Recv(); !fault.Is(err, fault.Corrupt) {
		t.Errorf("cut off: %v", err)
	}
	if err := a.Send(1, &Query{}, make([]int, maxFiles+1)); !fault.Is(err, fault.Exhausted) {
		t.Errorf("too many: %v", err)
	}
	r.Close()
	w.Close()
	if now := openFiles(t); now != before {
		t.Errorf("%d descriptors open, %d before", now, before)
	}
}

func TestEndOfPeer(t *testing.T) {
	a, b := pair(t)
	if !b.Alive() {
		t.Error("dead while open")
	}
	done := make(chan error)
	go func() { _, _, _, err := b.Recv(); done <- err }()
	time.Sleep(10 * time.Millisecond)
	a.Close()
	if err := <-done; err != io.EOF {
		t.Errorf("%v", err)
	}
	if b.Alive() {
		t.Error("alive without a peer")
	}
	if err := b.Send(1, &Query{}, nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("send: %v", err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
