package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzWhiteouts: whatever whiteouts are called and stand beside, nothing outside
// is touched, nothing inside is called like one, and no device is made but
// overlayfs's own whiteout.
func FuzzWhiteouts(f *testing.F) {
	f.Add("d/x", ".wh.", "d/.wh.x", byte(tar.TypeReg), "../../canary")
	f.Add("s", "s/.wh.", "s/.wh..wh..opq", byte(tar.TypeSymlink), "/canary")
	f.Add("d", ".wh..wh.plnk/", "d/.wh...", byte(tar.TypeDir), "")
	f.Add("h", ".wh.h", "h/.wh.h", byte(tar.TypeLink), "d")
	f.Add("c", ".wh.c", "c", byte(tar.TypeChar), "")
	f.Fuzz(func(t *testing.T, name, prefix, third string, kind byte, target string) {
		needRoot(t)
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range []tar.Header{
			{Name: "d/keep", Typeflag: tar.TypeReg, Mode: 0o644},
			{Name: name, Typeflag: kind, Linkname: target, Mode: 0o755},
			{Name: prefix + name, Typeflag: tar.TypeReg},
			{Name: third, Typeflag: tar.TypeReg},
			{Name: name, Typeflag: tar.TypeDir, Mode: 0o700},
		} {
			if w.WriteHeader(&h) != nil {
				return
			}
		}
		w.Close()
		top := t.TempDir()
		root := filepath.Join(top, "a", "fs")
		if os.MkdirAll(root, 0o755) != nil || os.WriteFile(filepath.Join(top, "canary"), nil, 0o600) != nil {
			t.Fatal("no directory")
		}
		before := picture(t, top, root)
		_, err := Tar(context.Background(), openDir(t, root), &b, Limits{Entries: 1000})
		if after := picture(t, top, root); after != before {
			t.Fatalf("outside:\n%s\nbecame\n%s", before, after)
		}
		if err != nil {
			return
		}
		filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			st := stat(t, path)
			kind := st.Mode & unix.S_IFMT
			if strings.HasPrefix(e.Name(), whiteoutPrefix) || kind == unix.S_IFBLK || kind == unix.S_IFCHR && st.Rdev != 0 {
				t.Fatalf("%q is there, mode %o", path, st.Mode)
			}
			return nil
		})
	})
}
