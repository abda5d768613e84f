package snapshot

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// TestOpen reads files as a mounted root would show them: uppers before layers,
// whiteouts and opaque directories heeded, and nothing but regular files in
// directories ever opened.
func TestOpen(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root, Options{})
	b, err := s.Build(lowID)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	layer, err := s.LayerDir(lowID)
	if err != nil {
		t.Fatal(err)
	}
	upper, err := s.NewUpper()
	if err != nil {
		t.Fatal(err)
	}
	fs := filepath.Join(root, "uppers", upper, "fs")
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(dir, name, text string) {
		t.Helper()
		must(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	for _, name := range []string{"etc/low", "etc/both", "etc/gone", "opaque/hidden", "out/secret"} {
		write(layer, name, "layer")
	}
	write(fs, "etc/both", "upper")
	write(fs, "opaque/shown", "upper")
	must(unix.Mknod(filepath.Join(fs, "etc/gone"), unix.S_IFCHR, 0), unix.Mknod(filepath.Join(fs, "out"), unix.S_IFCHR, 0),
		unix.Setxattr(filepath.Join(fs, "opaque"), "trusted.overlay.opaque", []byte("y"), 0),
		os.Symlink("/etc/shadow", filepath.Join(fs, "etc/link")), os.Symlink("/etc", filepath.Join(fs, "dirlink")),
		unix.Mkfifo(filepath.Join(fs, "etc/pipe"), 0o600))

	for name, want := range map[string]string{"etc/low": "layer", "etc/both": "upper", "opaque/shown": "upper"} {
		f, err := s.Open(upper, []string{lowID}, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, _ := io.ReadAll(f)
		f.Close()
		if string(text) != want {
			t.Errorf("%s is %q, want the one of the %s", name, text, want)
		}
	}
	for name, want := range map[string]fault.Class{
		"etc/gone": fault.NotFound, "out/secret": fault.NotFound, "opaque/hidden": fault.NotFound, "etc/none": fault.NotFound,
		"etc/link": fault.Denied, "dirlink/shadow": fault.Denied, "etc/pipe": fault.Denied, "etc": fault.Denied, "etc/low/x": fault.Denied,
	} {
		f, err := s.Open(upper, []string{lowID}, name)
		if !fault.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if f != nil {
			f.Close()
		}
	}
	if _, err := s.Open("", []string{lowID}, "../../../etc/passwd"); err == nil {
		t.Error("a name led out of the layer")
	}
}
