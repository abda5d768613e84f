package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"os"
)

// FuzzName: a clean name never leaves the root, and cleaning it again changes
// nothing.
func FuzzName(f *testing.F) {
	for _, s := range []string{"", ".", "/", "a", "./a/b/", "../x", "a/../b", "a//b", "/..", "a/.", ".wh.a", "d/.wh..wh..opq", ".wh...", "\x00", "...", "a/..."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := cleanName(raw, 4095)
		if err != nil {
			return
		}
		if name != "." && !filepath.IsLocal(name) || name != filepath.Clean(name) || filepath.IsAbs(name) {
			t.Fatalf("%q became %q", raw, name)
		}
		if twice, err := cleanName(name, 4095); err != nil || twice != name {
			t.Fatalf("%q became %q, then %q", raw, name, twice)
		}
		dir, base := split(name)
		if join(dir, base) != name {
			t.Fatalf("%q split into %q and %q", name, dir, base)
		}
		if whiteoutKind(name) == whiteout {
			target := strings.TrimPrefix(base, whiteoutPrefix)
			if target == "" || target == "." || target == ".." || strings.Contains(target, "/") {
				t.Fatalf("%q hides %q", name, target)
			}
		}
	})
}

// FuzzTar: any bytes at all touch nothing outside the directory.
func FuzzTar(f *testing.F) {
	f.Add(layer(f, file("a", "b"), symlink("s", "../../canary"), file("s/x", ""), hardlink("h", "a"), file(".wh.a", "")))
	f.Add(layer(f, dir("d"), symlink("d/s", "/"), file("d/s/etc/passwd", "x"), entry{tar.Header{Name: "n", Typeflag: tar.TypeFifo}, ""}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		needRoot(t)
		top := t.TempDir()
		root := filepath.Join(top, "a", "fs")
		if err := os.MkdirAll(root, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, "canary"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		before := picture(t, top, root)
		Tar(context.Background(), openDir(t, root), bytes.NewReader(raw), Limits{Bytes: 1 << 20, Entries: 1000})
		if after := picture(t, top, root); after != before {
			t.Fatalf("outside:\n%s\nbecame\n%s", before, after)
		}
	})
}
