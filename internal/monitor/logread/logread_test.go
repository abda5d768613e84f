package logread

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/monitor/filelog"
	"fief/internal/monitor/lines"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

var all = ask.Logs{Stdout: true, Stderr: true, Tail: -1}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func open(t *testing.T, path string, size int64, keep int) *filelog.Log {
	t.Helper()
	l, err := filelog.Open(filelog.Config{Path: path, MaxSize: size, MaxFile: keep})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func texts(t *testing.T, path string, q ask.Logs) []string {
	t.Helper()
	var out []string
	err := Read(t.Context(), path, q, nil, func(l record.LogLine) error {
		out = append(out, string(l.Text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sample writes lines 0…n-1, one a second, every third to stderr.
func sample(t *testing.T, path string, n int, size int64, keep int) {
	t.Helper()
	l := open(t, path, size, keep)
	out, errs := lines.NewStream(l, "stdout"), lines.NewStream(l, "stderr")
	for i := range n {
		s := out
		if i%3 == 0 {
			s = errs
		}
		s.Write(fmt.Appendf(nil, "line %d\n", i), epoch.Add(time.Duration(i)*time.Second))
	}
}

func TestSelection(t *testing.T) {
	for _, size := range []int64{0, 5000} { // in one file, and in many
		path := filepath.Join(t.TempDir(), "log")
		sample(t, path, 1000, size, 1000)
		with := func(change func(*ask.Logs)) []string {
			q := all
			change(&q)
			return texts(t, path, q)
		}
		check := func(what string, got []string, n int, first, last string) {
			t.Helper()
			if len(got) != n || n > 0 && (got[0] != first || got[n-1] != last) {
				t.Errorf("size %d, %s: %d lines, %.60q", size, what, len(got), got)
			}
		}
		check("all", with(func(*ask.Logs) {}), 1000, "line 0\n", "line 999\n")
		check("tail 0", with(func(q *ask.Logs) { q.Tail = 0 }), 0, "", "")
		check("tail 5", with(func(q *ask.Logs) { q.Tail = 5 }), 5, "line 995\n", "line 999\n")
		check("tail 700", with(func(q *ask.Logs) { q.Tail = 700 }), 700, "line 300\n", "line 999\n")
		check("tail 1000", with(func(q *ask.Logs) { q.Tail = 1000 }), 1000, "line 0\n", "line 999\n")
		check("tail 5000", with(func(q *ask.Logs) { q.Tail = 5000 }), 1000, "line 0\n", "line 999\n")
		check("stderr", with(func(q *ask.Logs) { q.Stdout = false }), 334, "line 0\n", "line 999\n")
		check("tail 2 of stderr", with(func(q *ask.Logs) { q.Stdout, q.Tail = false, 2 }), 2, "line 996\n", "line 999\n")
		check("since", with(func(q *ask.Logs) { q.Since = epoch.Add(990 * time.Second) }), 10, "line 990\n", "line 999\n")
		check("until", with(func(q *ask.Logs) { q.Until = epoch.Add(9 * time.Second) }), 10, "line 0\n", "line 9\n")
	}
}

func TestTailCountsWholeLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := open(t, path, 0, 1)
	s := lines.NewStream(l, "stdout")
	s.Write([]byte("first\nback\\n\n"+strings.Repeat("x", 40000)+"\nlast"), epoch)
	s.Close(epoch)
	for n, want := range []int{0, 1, 4, 5, 6, 6} {
		q := all
		q.Tail = n
		if got := texts(t, path, q); len(got) != want {
			t.Errorf("tail %d: %d records", n, len(got))
		}
	}
}

func TestNoLog(t *testing.T) {
	if got := texts(t, filepath.Join(t.TempDir(), "none"), all); got != nil {
		t.Errorf("%q", got)
	}
	q := all
	q.Tail = 3
	texts(t, filepath.Join(t.TempDir(), "none", "none"), q)
}

func TestDamagedRecordsAreSkipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	good := func(s string) string {
		return `{"log":"` + s + `\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}` + "\n"
	}
	os.WriteFile(path, []byte(good("a")+`{"log":"torn`+"\n"+"\x00\x00\x00"+good("b")+strings.Repeat("z", 3<<20)+"\n"+"[]\n\n"+good("c")+`{"log":"unfin`), 0o600)
	for _, tail := range []int{-1, 3} {
		q := all
		q.Tail = tail
		if got := texts(t, path, q); strings.Join(got, "") != "a\nb\nc\n" {
			t.Errorf("tail %d: %q", tail, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}`+"\n"), 1)
	f.Add([]byte("\n\n{}\n"), 0)
	f.Fuzz(func(t *testing.T, content []byte, tail int) {
		path := filepath.Join(t.TempDir(), "log")
		os.WriteFile(path, content, 0o600)
		q := all
		n := len(texts(t, path, q))
		q.Tail = max(tail, 0)
		if got := len(texts(t, path, q)); got > n {
			t.Errorf("tail %d has %d records, all have %d", q.Tail, got, n)
		}
	})
}

// TestFollow: what is written while it is followed arrives in order, once, and
// completely, across dozens of rotations.
func TestFollow(t *testing.T) {
	const n = 20000
	path := filepath.Join(t.TempDir(), "log")
	ended := make(chan struct{})
	go func() {
		l, err := filelog.Open(filelog.Config{Path: path, MaxSize: 20000, MaxFile: 100})
		if err != nil {
			panic(err)
		}
		s := lines.NewStream(l, "stdout")
		for i := range n {
			s.Write(fmt.Appendf(nil, "%d\n", i), time.Now())
			if i%1000 == 0 {
				time.Sleep(5 * time.Millisecond) // let the reader reach the end now and then
			}
		}
		l.Close()
		close(ended)
	}()
	q := all
	q.Follow = true
	next := 0
	err := Read(t.Context(), path, q, ended, func(l record.LogLine) error {
		if string(l.Text) != fmt.Sprintf("%d\n", next) {
			return fmt.Errorf("%q where %d belongs", l.Text, next)
		}
		next++
		return nil
	})
	if err != nil || next != n {
		t.Errorf("%d lines, %v", next, err)
	}
}

// TestFollowWithLoss: files that are dropped before they were read are missing,
// nothing else is, and nothing comes twice.
func TestFollowWithLoss(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	ended := make(chan struct{})
	go func() {
		l, err := filelog.Open(filelog.Config{Path: path, MaxSize: 1000, MaxFile: 2})
		if err != nil {
			panic(err)
		}
		s := lines.NewStream(l, "stdout")
		for i := range 20000 {
			s.Write(fmt.Appendf(nil, "%d\n", i), time.Now())
		}
		l.Close()
		close(ended)
	}()
	q := all
	q.Follow = true
	last := -1
	err := Read(t.Context(), path, q, ended, func(l record.LogLine) error {
		var i int
		if err := json.Unmarshal(l.Text, &i); err != nil || i <= last {
			return fmt.Errorf("%q after %d", l.Text, last)
		}
		last = i
		return nil
	})
	if err != nil || last != 19999 {
		t.Errorf("last %d, %v", last, err)
	}
}

func TestFollowEnds(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "log")
	os.Mkdir(filepath.Dir(path), 0o700)
	sample(t, path, 3, 0, 1)
	q := all
	q.Follow = true
	follow := func(ctx context.Context, q ask.Logs, emit func(record.LogLine) error) error {
		done := make(chan error, 1)
		go func() { done <- Read(ctx, path, q, nil, emit) }()
		select {
		case err := <-done:
			return err
		case <-time.After(time.Minute):
			return errors.New("still following")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	nothing := func(record.LogLine) error { return nil }
	if err := follow(ctx, q, nothing); !fault.Is(err, fault.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	stop := errors.New("enough")
	if err := follow(t.Context(), q, func(record.LogLine) error { return stop }); err != stop {
		t.Errorf("emit's error: %v", err)
	}
	q.Until = time.Now().Add(50 * time.Millisecond)
	if err := follow(t.Context(), q, nothing); err != nil {
		t.Errorf("until: %v", err)
	}
	q.Until = time.Time{}
	time.AfterFunc(50*time.Millisecond, func() { os.RemoveAll(filepath.Dir(path)) })
	if err := follow(t.Context(), q, nothing); err != nil {
		t.Errorf("removed: %v", err)
	}
}

// TestFollowBeforeTheFirstLine: a container that was created may be followed
// before it is started.
func TestFollowBeforeTheFirstLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	time.AfterFunc(50*time.Millisecond, func() { sample(t, path, 1, 0, 1) })
	q := all
	q.Follow = true
	stop := errors.New("got it")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Read(ctx, path, q, nil, func(record.LogLine) error { return stop }); err != stop {
		t.Error(err)
	}
}
