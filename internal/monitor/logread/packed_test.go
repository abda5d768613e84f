package logread

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/monitor/filelog"
	"fief/internal/monitor/lines"
	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// pack compresses as fief-mon's process does.
func pack(_ <-chan struct{}, src, dst *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	z := gzip.NewWriter(dst)
	z.Comment = inode(info)
	if _, err := io.Copy(z, src); err != nil {
		return err
	}
	return z.Close()
}

// TestPackedAndFollowed: a reader that is slow enough to see files renamed and
// compressed under it gets every line once, and a later one finds all of them.
func TestPackedAndFollowed(t *testing.T) {
	for _, format := range []filelog.Format{filelog.JSON, filelog.CRI} {
		path := filepath.Join(t.TempDir(), "log")
		l, err := filelog.Open(filelog.Config{Path: path, Format: format, MaxSize: 20000, MaxFile: 1000, Compress: pack})
		if err != nil {
			t.Fatal(err)
		}
		const n = 5000
		ended := make(chan struct{})
		got := make(chan []string)
		go func() {
			var out []string
			q := all
			q.Follow = true
			err := Read(context.Background(), path, q, ended, func(l record.LogLine) error {
				if len(out)%200 == 0 {
					time.Sleep(5 * time.Millisecond)
				}
				out = append(out, string(l.Text))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			got <- out
		}()
		s := lines.NewStream(l, "stdout")
		for i := range n {
			s.Write(fmt.Appendf(nil, "line %d of a log that is compressed \xff\n", i), epoch.Add(time.Duration(i)*time.Second))
			if i%100 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		packed, total := 0, 0
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) { // behind the writer
			files, _ := filelog.Files(path)
			packed, total = 0, len(files)
			for _, f := range files {
				if f.Packed {
					packed++
				}
			}
			if packed > 0 && packed >= total/2 {
				break
			}
		}
		s.Close(epoch)
		l.Close()
		close(ended)
		check := func(what string, out []string) {
			t.Helper()
			if len(out) != n {
				t.Errorf("format %d, %s: %d lines of %d", format, what, len(out), n)
			}
			for i, text := range out {
				if !strings.HasPrefix(text, fmt.Sprintf("line %d of", i)) {
					t.Errorf("format %d, %s: %q where line %d belongs", format, what, text, i)
					return
				}
			}
			if format == filelog.CRI && len(out) > 0 && !strings.HasSuffix(out[0], "\xff\n") {
				t.Errorf("bytes are not kept: %q", out[0])
			}
		}
		check("followed", <-got)
		check("read later", texts(t, path, all))
		if packed < total/2 || packed == 0 {
			t.Errorf("%d of %d files are compressed", packed, total)
		}
		q := ask.Logs{Stdout: true, Tail: n - 100}
		if out := texts(t, path, q); len(out) != n-100 || !strings.HasPrefix(out[0], "line 100 of") {
			t.Errorf("tail: %d lines, first %.30q", len(out), out)
		}
		filelog.Remove(path)
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// FuzzParse: no line of a file makes the reader fail, and what it finds in one
// of the CRI's is what was written.
func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-01-01T00:00:00Z stdout P a\n"))
	f.Add([]byte("2026-01-01T00:00:00Z stderr F:x b\n"))
	f.Add([]byte(`{"log":"a\n","stream":"stdout","attrs":{"stream":"x"},"time":"2026-01-01T00:00:00Z"}` + "\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, ok := parse(raw)
		stream, _, seen := glance(raw)
		if ok && seen && stream != l.Stream && raw[0] != '{' {
			t.Errorf("%q: stream %q and %q", raw, l.Stream, stream)
		}
		parseJournal(raw)
	})
}
