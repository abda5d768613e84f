package filelog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/monitor/lines"
)

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain\n", "q\"b\\\t\r\b\f\x00\x1f\x7f", "<&>", "\u2028\u2029é漢😀", "\xff\xc3", "a\xe2\x80"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(string(text)); err != nil {
			t.Fatal(err)
		}
		got := AppendString(nil, text)
		if string(got)+"\n" != want.String() {
			t.Errorf("%q: %s, encoding/json has %s", text, got, want.String())
		}
	})
}

// FuzzStream cuts text at any places into writes: the pieces of the log put
// together are the text, and each ends in a newline or is full or the last.
func FuzzStream(f *testing.F) {
	f.Add([]byte("a\nb"), 1)
	f.Add([]byte(strings.Repeat("é", 20000)+"\n"), 77)
	f.Add([]byte(strings.Repeat("x", lines.MaxPiece)+"\n"), 4096)
	f.Fuzz(func(t *testing.T, text []byte, step int) {
		if step < 1 || len(text) > 1<<17 || len(text)/step > 1000 {
			return
		}
		text = bytes.ToValidUTF8(text, []byte("?"))
		path := filepath.Join(t.TempDir(), "log")
		l, err := Open(Config{Path: path, MaxSize: 0, MaxFile: 1})
		if err != nil {
			t.Fatal(err)
		}
		s := lines.NewStream(l, "stdout")
		for i := 0; i < len(text); i += step {
			s.Write(text[i:min(len(text), i+step)], time.Now())
		}
		s.Close(time.Now())
		l.Close()
		var all []byte
		records := read(t, path)
		for i, r := range records {
			all = append(all, r.Log...)
			if !strings.HasSuffix(r.Log, "\n") && len(r.Log) < lines.MaxPiece-3 && i < len(records)-1 || len(r.Log) > lines.MaxPiece+1 {
				t.Errorf("piece %d has %d bytes: %.40q", i, len(r.Log), r.Log)
			}
		}
		if !bytes.Equal(all, text) {
			t.Errorf("wrote %d bytes, log has %d", len(text), len(all))
		}
	})
}

type rec struct {
	Log, Stream string
	Time        time.Time
}

func read(t *testing.T, path string) []rec {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []rec
	for _, raw := range bytes.Split(bytes.TrimSuffix(content, []byte("\n")), []byte("\n")) {
		var r rec
		if len(raw) == 0 {
			continue
		}
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatalf("%v: %.80q", err, raw)
		}
		out = append(out, r)
	}
	return out
}

func TestFormatIsDockers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := Open(Config{Path: path, MaxSize: 0, MaxFile: 1})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 22, 9, 8, 7, 120000000, time.FixedZone("x", 3600))
	out, errs := lines.NewStream(l, "stdout"), lines.NewStream(l, "stderr")
	out.Write([]byte("one\ntw"), at)
	errs.Write([]byte("oops\n"), at)
	out.Write([]byte("o\n"+strings.Repeat("y", 40000)+"\nend"), at)
	out.Close(at)
	errs.Close(at)
	l.Close()
	content, _ := os.ReadFile(path)
	const tail = `","stream":"stdout","time":"2026-11-22T08:08:07.12Z"}` + "\n"
	want := `{"log":"one\n` + tail +
		`{"log":"oops\n","stream":"stderr","time":"2026-11-22T08:08:07.12Z"}` + "\n" +
		`{"log":"two\n` + tail +
		`{"log":"` + strings.Repeat("y", 16384) + tail + `{"log":"` + strings.Repeat("y", 16384) + tail +
		`{"log":"` + strings.Repeat("y", 40000-2*16384) + `\n` + tail +
		`{"log":"end` + tail
	if string(content) != want {
		t.Errorf("log is\n%.2000s", content)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestRotation(t *testing.T) {
	for _, keep := range []int{1, 3} {
		path := filepath.Join(t.TempDir(), "log")
		l, err := Open(Config{Path: path, MaxSize: 2000, MaxFile: keep})
		if err != nil {
			t.Fatal(err)
		}
		s := lines.NewStream(l, "stdout")
		for i := range 300 {
			s.Write(fmt.Appendf(nil, "line %d\n", i), time.Now())
		}
		s.Close(time.Now())
		l.Close()
		files, err := Files(path)
		if err != nil || len(files) != keep || files[len(files)-1].Name != path {
			t.Fatalf("keep %d: %v, %v", keep, files, err)
		}
		var all []rec
		for _, f := range files {
			name := f.Name
			part := read(t, name)
			if info, _ := os.Stat(name); name != path && (info.Size() < 2000 || info.Size() > 2200) {
				t.Errorf("%s has %d bytes", name, info.Size())
			}
			all = append(all, part...)
		}
		for i, r := range all {
			if want := fmt.Sprintf("line %d\n", 300-len(all)+i); r.Log != want {
				t.Fatalf("keep %d: %q where %q belongs", keep, r.Log, want)
			}
		}
		if err := Remove(path); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestCutObjectIsEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	os.WriteFile(path, []byte(`{"log":"whole\n","stream":"stdout","time":"2026-11-22T08:08:07Z"}`+"\n"+`{"log":"ha`), 0o640)
	l, err := Open(Config{Path: path, MaxSize: 0, MaxFile: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := lines.NewStream(l, "stdout")
	s.Write([]byte("next\n"), time.Now())
	l.Close()
	content, _ := os.ReadFile(path)
	if got := strings.Split(string(content), "\n"); len(got) != 4 || !strings.HasPrefix(got[2], `{"log":"next\n"`) {
		t.Errorf("log is %q", content)
	}
}

// A full disk costs lines, never the shape of the log, and never an error or a
// wait for the container.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := Open(Config{Path: path, MaxSize: 0, MaxFile: 1})
	if err != nil {
		t.Fatal(err)
	}
	real := l.file
	if l.file, err = os.OpenFile("/dev/full", os.O_RDWR, 0); err != nil {
		t.Skip("fs: no /dev/full")
	}
	s := lines.NewStream(l, "stdout")
	s.Write([]byte("lost\n"), time.Now())
	if l.Err() == nil {
		t.Error("no error is remembered")
	}
	l.file.Close()
	l.file = real
	s.Write([]byte("kept\n"), time.Now())
	if l.Err() != nil {
		t.Error(l.Err())
	}
	l.Close()
	if got := read(t, path); len(got) != 1 || got[0].Log != "kept\n" {
		t.Errorf("log has %+v", got)
	}
}

// TestAttributesAndCRI: what the other options change in the file.
func TestAttributesAndCRI(t *testing.T) {
	at := time.Date(2026, 11, 22, 8, 8, 7, 120000000, time.UTC)
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Attrs: `{"tag":"x"}`}, `{"log":"a\n","stream":"stdout","attrs":{"tag":"x"},"time":"2026-11-22T08:08:07.12Z"}` + "\n" +
			`{"log":"b","stream":"stdout","attrs":{"tag":"x"},"time":"2026-11-22T08:08:07.12Z"}` + "\n"},
		{Config{Format: CRI}, "2026-11-22T08:08:07.12Z stdout F a\n2026-11-22T08:08:07.12Z stdout P b\n"},
	} {
		c.cfg.Path = filepath.Join(t.TempDir(), "log")
		l, err := Open(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		s := lines.NewStream(l, "stdout")
		s.Write([]byte("a\nb"), at)
		s.Close(at)
		l.Close()
		if got, _ := os.ReadFile(c.cfg.Path); string(got) != c.want {
			t.Errorf("%+v: %s", c.cfg, got)
		}
	}
}
