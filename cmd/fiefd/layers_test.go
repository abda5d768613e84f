package main

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	"fief/internal/snapshot"
	"fief/internal/testenv"
	"fief/internal/words/record"
)

// What the extractor notes reaches the record of the layer, all of it.
func TestLayerRecordsWhatWasNoted(t *testing.T) {
	testenv.NeedRoot(t)
	store, err := snapshot.Open(t.TempDir(), snapshot.Options{Stock: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct{ name, body string }{
		{".wh..wh..opq", ""}, {"etc/passwd", "app:x:7000:5::/:\n"}, {"etc/group", "app:x:8000:\n"},
	} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Uid: 10, Gid: 20, Size: int64(len(f.body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	const id = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	l := layers{store}
	got, err := l.Unpack(t.Context(), id, &b)
	want := record.Layer{DiffID: id, Size: 29, Files: 4, MaxUID: 10, MaxGID: 20, PasswdUID: 7000, PasswdGID: 8000, Opaque: true}
	if err != nil || got != want || !l.Has(id) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if err := l.Remove(id); err != nil {
		t.Error(err)
	}
}
