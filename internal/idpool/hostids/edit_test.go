package hostids

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// ownMounts runs do in a thread with a mount namespace of its own, which ends
// with it. What do calls has to stay in its goroutine.
func ownMounts(t *testing.T, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: mounts need it")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// small is a host whose files are on a file system of 64 KiB.
func small(t *testing.T) Files {
	f := newAccounts(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Error(err)
	}
	for _, path := range []*string{&f.Passwd, &f.Group, &f.SubUID, &f.SubGID} {
		fresh := filepath.Join(dir, filepath.Base(*path))
		write(t, fresh, read(t, *path))
		*path = fresh
	}
	write(t, filepath.Join(dir, ".pwd.lock"), "")
	return f
}

// TestDefaultThatCannotBeWritten spoils a part of /etc, and looks that nothing
// is written to the other parts.
func TestDefaultThatCannotBeWritten(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(f Files) error
		class fault.Class
		cause string
	}{
		"read-only": {func(f Files) error {
			return unix.Mount("", filepath.Dir(f.Passwd), "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}, fault.Denied, "cannot lock accounts by %d/.pwd.lock: open %d/.pwd.lock: read-only file system"},
		"full": {func(f Files) error {
			// four files and three pages of other things leave room for two copies
			return os.WriteFile(filepath.Join(filepath.Dir(f.Passwd), "filler"), make([]byte, (16-4-2)*4096), 0o600)
		}, fault.Exhausted, "cannot add a line to %d/subuid: write %d/.subuid.fief: no space left on device"},
		"mount point": {func(f Files) error {
			return unix.Mount(f.SubGID, f.SubGID, "", unix.MS_BIND, "")
		}, fault.Denied, "cannot add a line to %d/subgid: it is a mount point and cannot be replaced"},
		"immutable": {func(f Files) error { return chattr(f.SubGID, unix.STATX_ATTR_IMMUTABLE) },
			fault.Denied, "cannot add a line to %d/subgid: it is immutable or append-only (chattr(1))"},
		"append-only": {func(f Files) error { return chattr(f.SubUID, unix.STATX_ATTR_APPEND) },
			fault.Denied, "cannot add a line to %d/subuid: it is immutable or append-only (chattr(1))"},
	} {
		t.Run(name, func(t *testing.T) {
			unable := false
			defer func() {
				if unable && !t.Failed() {
					t.Skip("fs: tmpfs has no file flags before Linux 6.6")
				}
			}()
			ownMounts(t, func() {
				f := small(t)
				dir := filepath.Dir(f.Passwd)
				before, names := all(t, f), list(t, dir)
				if err := c.spoil(f); err != nil {
					unable = errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP)
					if !unable {
						t.Error(err)
					}
					return
				}
				_, _, err := Remap("default", f)
				want := `Error during "dockremap" user creation: ` + strings.ReplaceAll(c.cause, "%d", dir)
				if err == nil || err.Error() != want || !fault.Is(err, c.class) || fault.HintOf(err) == "" {
					t.Errorf("%v (%s)\nwant %s", err, fault.HintOf(err), want)
				}
				if name != "read-only" && !strings.Contains(fault.HintOf(err), "dockremap:100000:65536 to "+f.SubGID) {
					t.Errorf("hint: %s", fault.HintOf(err))
				}
				if all(t, f) != before {
					t.Errorf("something is half done:\n%s", all(t, f))
				}
				if left := strings.Replace(list(t, dir), " filler", "", 1); left != names {
					t.Errorf("%s is left, there was %s", left, names)
				}
				if name == "immutable" || name == "append-only" {
					_ = chattr(f.SubUID, 0)
					_ = chattr(f.SubGID, 0)
				}
			})
		})
	}
}

// chattr sets the flags of a file as statx(2) shows them, which are those of
// FS_IOC_SETFLAGS.
func chattr(path string, flags int) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

func list(t *testing.T, dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	out := ""
	for _, e := range entries {
		out += " " + e.Name()
	}
	return out
}

func TestDefaultWhileAccountsAreLocked(t *testing.T) {
	f := newAccounts(t)
	f.lockWait = 50 * time.Millisecond
	unlock, err := f.complete().lockPasswd()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	before := all(t, f)
	_, _, err = Remap("default", f)
	want := fmt.Sprintf(`Error during "dockremap" user creation: cannot lock accounts by %s: resource temporarily unavailable`, filepath.Join(filepath.Dir(f.Passwd), ".pwd.lock"))
	if err == nil || err.Error() != want || !fault.Is(err, fault.Busy) || all(t, f) != before {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// TestEditsAreTakenBack undoes what a failure of the last edit finds done: a
// file replaced and a file made.
func TestEditsAreTakenBack(t *testing.T) {
	f := newAccounts(t)
	fresh := f.SubUID + ".new"
	before, names := all(t, f), list(t, filepath.Dir(f.Passwd))
	edits := []edit{{path: f.Passwd, line: "x:*:1:1::/:"}, {path: fresh, line: "x:1:1"}}
	for i := range edits {
		if err := edits[i].prepare(); err != nil {
			t.Fatal(err)
		}
		if err := edits[i].swap(); err != nil {
			t.Fatal(err)
		}
	}
	if all(t, f) == before || read(t, fresh) != "x:1:1\n" {
		t.Error("nothing was changed")
	}
	for i := range edits {
		if err := edits[i].undo(); err != nil {
			t.Error(err)
		}
	}
	if got := list(t, filepath.Dir(f.Passwd)); all(t, f) != before || got != names {
		t.Errorf("%s, was %s:\n%s", got, names, all(t, f))
	}
}
