package copy

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/testenv"
)

// aclFor is u::rw-, u:id:r--, g::r--, m::rw-, o::r--.
func aclFor(id uint32) string {
	raw := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
		16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	binary.LittleEndian.PutUint32(raw[16:], id)
	return string(raw)
}

func attr(path, name string) string {
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(path, name, value)
	if err != nil {
		return err.Error()
	}
	return string(value[:n])
}

// TestKinds: what a copy carries is the same after a way in and out again, for
// containers that run and that do not, with ids of their own and with the host's.
func TestKinds(t *testing.T) {
	h := open(t)
	src := h.dir + "/src"
	stamp := []unix.Timespec{{Sec: 1_600_000_000, Nsec: 123_456_789}, {Sec: 1_600_000_000, Nsec: 123_456_789}}
	must := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	must(os.MkdirAll(src+"/sub", 0o755), os.WriteFile(src+"/file", []byte("text"), 0o640), os.Chown(src+"/file", 33, 44),
		unix.Setxattr(src+"/file", "user.note", []byte("n"), 0), unix.Setxattr(src+"/file", "system.posix_acl_access", []byte(aclFor(7)), 0),
		unix.Setxattr(src+"/sub", "user.dir", []byte("d"), 0), unix.Setxattr(src+"/sub", "system.posix_acl_default", []byte(aclFor(8)), 0),
		os.Symlink("file", src+"/link"), os.Lchown(src+"/link", 33, 44), os.WriteFile(src+"/holes", []byte("x"), 0o600), os.Truncate(src+"/holes", 8<<20))
	for _, name := range []string{"file", "link", "holes", "sub", "."} {
		must(unix.UtimesNanoAt(unix.AT_FDCWD, src+"/"+name, stamp, unix.AT_SYMLINK_NOFOLLOW))
	}
	for _, c := range []struct{ name, verb, userns string }{
		{"run-auto", "run", "auto"}, {"still-auto", "create", "auto"}, {"run-host", "run", "host"}, {"still-host", "create", "host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{c.verb, "--name", c.name, "--userns", c.userns, "busybox", "sleep", "1000"}
			if c.verb == "run" {
				args = append([]string{"run", "-d"}, args[1:]...)
			}
			h.d.Must(t, args...)
			back := filepath.Join(h.dir, c.name)
			h.d.Must(t, "cp", "-a", src, c.name+":/kinds")
			h.d.Must(t, "cp", "-a", c.name+":/kinds", back)
			h.compare(t, src, back)
			if c.verb == "run" {
				if got := h.d.Must(t, "exec", c.name, "stat", "-c", "%u:%g", "/kinds/file"); got != "33:44" {
					t.Error(got)
				}
			}
			if len(clients()) > 1 {
				h.dockerKinds(t, c.name, src)
			}
		})
	}
}

func (h *house) compare(t *testing.T, want, got string) {
	t.Helper()
	for _, name := range []string{"file", "link", "holes", "sub", "."} {
		var a, b unix.Stat_t
		if err := unix.Lstat(want+"/"+name, &a); err != nil {
			t.Fatal(err)
		}
		if err := unix.Lstat(got+"/"+name, &b); err != nil {
			t.Error(err)
			continue
		}
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Mtim != b.Mtim || name != "sub" && name != "." && a.Size != b.Size {
			t.Errorf("%s: %+v, was %+v", name, b, a)
		}
		if name == "holes" && b.Blocks > 1024 {
			t.Errorf("%d blocks: its holes are filled", b.Blocks)
		}
		for _, x := range []string{"user.note", "user.dir", "system.posix_acl_access", "system.posix_acl_default"} {
			if is, was := attr(got+"/"+name, x), attr(want+"/"+name, x); is != was && name != "link" {
				t.Errorf("%s: %s is %q, was %q", name, x, is, was)
			}
		}
	}
}

// dockerKinds does the same with docker's client, which keeps owners on the way in
// alone and takes attributes from archives, but puts none into its own.
func (h *house) dockerKinds(t *testing.T, container, src string) {
	t.Helper()
	for _, args := range [][]string{{"cp", "-a", src, container + ":/docker"}, {"cp", "-a", container + ":/docker", filepath.Join(h.dir, container+"-docker")}} {
		if out, errs, code := testenv.Output(t, h.d.Command(t, "docker", args...)); code != 0 {
			t.Errorf("%v: %s%s", args, out, errs)
		}
	}
	list := exec.Command("tar", "--numeric-owner", "-tvf", "-")
	list.Stdin = strings.NewReader(h.d.Must(t, "cp", container+":/docker", "-"))
	lines, _, _ := testenv.Output(t, list)
	if !strings.Contains(lines, "33/44") || !strings.Contains(lines, "docker/link -> file") {
		t.Error(lines)
	}
	var a, b unix.Stat_t
	if err := unix.Lstat(filepath.Join(h.dir, container+"-docker/file"), &b); err != nil {
		t.Fatal(err)
	}
	if err := unix.Lstat(src+"/file", &a); err != nil || a.Size != b.Size || a.Mtim.Sec != b.Mtim.Sec {
		t.Errorf("%+v, was %+v, %v", b, a, err)
	}
}
