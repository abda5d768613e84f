package crash

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/testenv"

	"golang.org/x/sys/unix"
)

// Every kind of damage is found, named with the image it concerns, and nothing
// else is.
func TestVerifyFindsDamage(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	if out := d.Must(t, "system", "verify"); !strings.HasSuffix(out, "1 layers: all as they must be") {
		t.Fatalf("a whole store: %s", out)
	}
	fs, _ := filepath.Glob(d.Dir + "/data/layers/*/fs")
	blobs, _ := filepath.Glob(d.Dir + "/data/blobs/sha256/*")
	if len(fs) != 1 || len(blobs) != 3 {
		t.Fatalf("%v %v", fs, blobs)
	}
	index, passwd := fs[0]+"/var/www/index.html", fs[0]+"/etc/passwd"
	for _, c := range []struct {
		what       string
		harm, mend func() error
		want       string
	}{
		{"a byte", overwrite(index, "hellO\n"), overwrite(index, "hello\n"), `"/var/www/index.html" has other content, near byte 4`},
		{"a longer file", overwrite(index, "hello\nand more"), overwrite(index, "hello\n"), `"/var/www/index.html" has 14 bytes, not 6`},
		{"an owner", func() error { return os.Lchown(passwd, 7, 8) }, func() error { return os.Lchown(passwd, 0, 0) }, `"/etc/passwd" belongs to 7:8, not 0:0`},
		{"a mode", func() error { return os.Chmod(passwd, 0o666) }, func() error { return os.Chmod(passwd, 0o644) }, `"/etc/passwd" has mode 0666, not 0644`},
		{"one more", func() error { return os.Mkdir(fs[0]+"/extra", 0o755) }, func() error { return os.Remove(fs[0] + "/extra") }, `"/extra" does not belong there`},
		{"one less", func() error { return os.Rename(fs[0]+"/bin/ls", fs[0]+"/../ls") }, func() error { return os.Rename(fs[0]+"/../ls", fs[0]+"/bin/ls") }, `"/bin/ls" is missing`},
		{"another kind", func() error {
			return first(os.Rename(fs[0]+"/bin/ls", fs[0]+"/../ls"), os.Mkdir(fs[0]+"/bin/ls", 0o777))
		}, func() error { return first(os.Remove(fs[0]+"/bin/ls"), os.Rename(fs[0]+"/../ls", fs[0]+"/bin/ls")) },
			`"/bin/ls" is of type 040000, not 0120000`},
		{"an attribute", func() error { return unix.Lsetxattr(fs[0]+"/home", "trusted.overlay.opaque", []byte("y"), 0) },
			func() error { return unix.Lremovexattr(fs[0]+"/home", "trusted.overlay.opaque") },
			`"/home" has the attribute trusted.overlay.opaque, which does not belong there`},
		{"a root", func() error { return os.Chmod(fs[0], 0o700) }, func() error { return os.Chmod(fs[0], 0o755) }, `"/" has mode 0700, not 0755`},
		{"a directory", func() error { return os.Rename(filepath.Dir(fs[0]), d.Dir+"/away") }, func() error { return os.Rename(d.Dir+"/away", filepath.Dir(fs[0])) }, "its directory is missing"},
		{"a blob less", func() error { return os.Rename(blobs[0], d.Dir+"/away") }, func() error { return os.Rename(d.Dir+"/away", blobs[0]) }, "it is missing"},
	} {
		if err := c.harm(); err != nil {
			t.Fatal(c.what, err)
		}
		out, errs, code := d.Fief(t, "system", "verify", "-q")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if code != 1 || len(lines) != 3 || !strings.Contains(lines[1], "to repair it: ") || !strings.Contains(lines[0], c.want) || !strings.Contains(lines[0], "of busybox:latest: ") {
			t.Errorf("%s: exit %d, %s%s; want %q", c.what, code, out, errs, c.want)
		}
		if err := c.mend(); err != nil {
			t.Fatal(c.what, err)
		}
	}
	for _, b := range blobs {
		raw, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := first(overwrite(b, string(raw[:len(raw)-1])+"!")(), nil); err != nil {
			t.Fatal(err)
		}
		out, _, code := d.Fief(t, "system", "verify", "--json")
		if code != 1 || !strings.Contains(out, `"its content has digest sha256:`) || !strings.Contains(out, filepath.Base(b)) {
			t.Errorf("blob %s: exit %d, %s", b, code, out)
		}
		if err := overwrite(b, string(raw))(); err != nil {
			t.Fatal(err)
		}
	}
	if out := d.Must(t, "system", "verify"); !strings.HasSuffix(out, "all as they must be") {
		t.Errorf("mended: %s", out)
	}
}

// overwrite keeps the modification time, as a disk does that forgets.
func overwrite(name, content string) func() error {
	return func() error {
		st, err := os.Stat(name)
		if err != nil {
			return err
		}
		return first(os.WriteFile(name, []byte(content), 0), os.Chtimes(name, time.Time{}, st.ModTime()))
	}
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// What nobody needs is listed and is no damage, and goes with the next start.
func TestOrphansGoWithTheNextStart(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	layer, blob := d.Dir+"/data/layers/0123456789abcdef0123456789abcdef", d.Dir+"/data/blobs/sha256/"+string(bytes.Repeat([]byte("ab"), 32))
	if err := first(os.MkdirAll(layer+"/fs/etc", 0o755), os.WriteFile(blob, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	out := d.Must(t, "system", "verify")
	if !strings.Contains(out, "orphan: layer 0123456789abcdef") || !strings.Contains(out, "orphan: blob abab") {
		t.Error(out)
	}
	d.Kill(t)
	d.Up(t)
	if out := d.Must(t, "system", "verify"); strings.Contains(out, "orphan") || !strings.HasSuffix(out, "all as they must be") {
		t.Error(out)
	}
	for _, name := range []string{layer, blob} {
		if _, err := os.Lstat(name); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
