package nativetest

import (
	"archive/tar"
	"context"
	"io"
	"strings"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// Save writes a tar with the names and the format.
func (e *Engine) Save(_ context.Context, s ask.SaveImages, w io.Writer) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, name := range s.Names {
		if _, ok := e.image(name); !ok {
			return fault.Say(fault.NotFound, "No such image: "+name+":latest")
		}
	}
	t := tar.NewWriter(w)
	said := strings.Join(append(s.Names, string(s.Format), strings.Join(s.Platforms, ",")), " ") + "\n"
	if err := t.WriteHeader(&tar.Header{Name: "blobs/sha256/said", Mode: 0o644, Size: int64(len(said))}); err != nil {
		return err
	}
	if _, err := io.WriteString(t, said); err != nil {
		return err
	}
	return t.Close()
}
