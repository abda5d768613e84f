package nativetest

import (
	"archive/tar"
	"context"
	"io"
	"io/fs"
	"path"
	"strings"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// StatPath knows the directories / and /etc and the file /etc/hosts.
func (e *Engine) StatPath(_ context.Context, id, name string) (record.PathStat, error) {
	switch name {
	case "/", "/etc":
		return record.PathStat{Name: path.Base(name), Mode: fs.ModeDir | 0o755}, nil
	case "/etc/hosts":
		return record.PathStat{Name: "hosts", Size: 6, Mode: 0o644}, nil
	}
	return record.PathStat{}, fault.Say(fault.NotFound, "Could not find the file "+name+" in container "+id)
}

// ReadPath returns what StatPath knows; every file says "hello".
func (e *Engine) ReadPath(ctx context.Context, id, name string) (record.PathStat, io.ReadCloser, error) {
	stat, err := e.StatPath(ctx, id, name)
	if err != nil {
		return stat, nil, err
	}
	var text strings.Builder
	w := tar.NewWriter(&text)
	h := &tar.Header{Name: stat.Name, Size: stat.Size, Mode: int64(stat.Mode.Perm())}
	if stat.Mode.IsDir() {
		h.Name, h.Typeflag = stat.Name+"/", tar.TypeDir
	}
	if err := w.WriteHeader(h); err != nil {
		return stat, nil, err
	}
	io.WriteString(w, "hello\n"[:stat.Size])
	return stat, io.NopCloser(strings.NewReader(text.String())), w.Close()
}

// WritePath takes any archive for a directory that StatPath knows.
func (e *Engine) WritePath(ctx context.Context, id string, c ask.CopyIn, r io.Reader) error {
	if _, err := e.StatPath(ctx, id, c.Path); err != nil {
		return err
	}
	for t := tar.NewReader(r); ; {
		_, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.Invalid, "unpack", "archive", err, "")
		}
	}
}
