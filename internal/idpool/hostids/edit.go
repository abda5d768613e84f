package hostids

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// lockPasswd takes the lock of lckpwdf(3): a write lock on .pwd.lock. An open
// file description lock excludes the process locks of other programs, and,
// unlike those, also other goroutines (fcntl(2)).
func (f Files) lockPasswd() (unlock func(), err error) {
	const op = "lock accounts by"
	path := filepath.Join(filepath.Dir(f.Passwd), ".pwd.lock")
	lock, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fault.Wrap(classOf(err), op, path, err, "add the user "+remapUser+" yourself, or name another one")
	}
	for deadline := time.Now().Add(f.lockWait); ; time.Sleep(20 * time.Millisecond) {
		err = unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			return func() { lock.Close() }, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			lock.Close()
			return nil, fault.Wrap(fault.Busy, op, path, err, "another program is changing users: try again")
		}
	}
}

// edit is a line to be added to a file of accounts.
type edit struct {
	path, line string

	target  string // path without links
	fresh   string // the new file, beside the target; then the old one
	there   bool   // whether there is an old one
	kept    bool   // whether fresh is the old file
	changed bool
}

// apply adds each line to its file by putting a complete copy in the file's
// place, with the mode, owner and SELinux label that it has. A missing file is
// made, mode 0644. All copies are on the disk before the first one is put in
// place, and when one cannot be, those before it are taken back: on an error
// nothing has changed. Preconditions: the lock of accounts is held, each file is
// named once.
func apply(edits []edit) error {
	done := 0
	var err error
	for i := range edits {
		if err = edits[i].prepare(); err != nil {
			break
		}
		done++
	}
	for i := 0; err == nil && i < len(edits); i++ {
		if err = edits[i].swap(); err != nil {
			done = i
		}
	}
	if err == nil {
		return finish(edits)
	}
	failed := edits[done]
	for i := range edits {
		err = errors.Join(err, edits[i].undo())
	}
	var lines []string
	for _, e := range edits {
		lines = append(lines, e.line+" to "+e.path)
	}
	return fault.Wrap(classOf(err), "add a line to", failed.path, err, "name another user, or add these lines yourself: "+strings.Join(lines, ", "))
}

func classOf(err error) fault.Class {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.Exhausted
	}
	return fault.Denied
}

// finish removes the old files, and makes the new ones last.
func finish(edits []edit) error {
	var err error
	for _, e := range edits {
		if e.kept {
			err = errors.Join(err, os.Remove(e.fresh))
		}
		err = errors.Join(err, syncDir(filepath.Dir(e.target)))
	}
	return fault.Wrap(fault.Unavailable, "add the user", remapUser, err, "")
}

// prepare writes the new file beside the old one.
func (e *edit) prepare() error {
	e.target = plain(e.path)
	text, err := readAccounts(e.target)
	if err != nil {
		return err
	}
	if e.there, err = replaceable(e.target); err != nil {
		return err
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	text = append(text, e.line+"\n"...)
	e.fresh = copyOf(e.path)
	if err := os.Remove(e.fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(e.fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, likeOld(f, e.target), f.Sync(), f.Close())
}

// plain is a path without links, or the path itself when it leads nowhere.
func plain(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// copyOf names the copy beside a file.
func copyOf(path string) string {
	dir, name := filepath.Split(plain(path))
	return dir + "." + name + ".fief"
}

// replaceable reports whether there is a file, and refuses one that no other
// can be put in the place of: rename(2) would, after other files were changed.
func replaceable(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, err
	case st.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0:
		return true, errors.New("it is immutable or append-only (chattr(1))")
	case st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return true, errors.New("it is a mount point and cannot be replaced")
	}
	return true, nil
}

// swap puts the new file in the old one's place, and keeps the old one where
// the file system can exchange two names (rename(2)).
func (e *edit) swap() error {
	if e.there {
		err := unix.Renameat2(unix.AT_FDCWD, e.fresh, unix.AT_FDCWD, e.target, unix.RENAME_EXCHANGE)
		if err == nil {
			e.kept, e.changed = true, true
			return nil
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return err
		}
	}
	err := os.Rename(e.fresh, e.target)
	e.changed = err == nil
	return err
}

// undo takes an edit back as far as it has come. On a file system that cannot
// exchange names, a file that was replaced keeps its new line.
func (e *edit) undo() error {
	switch {
	case e.kept:
		err := unix.Renameat2(unix.AT_FDCWD, e.fresh, unix.AT_FDCWD, e.target, unix.RENAME_EXCHANGE)
		return errors.Join(err, os.Remove(e.fresh))
	case e.changed && !e.there:
		return os.Remove(e.target)
	case e.changed || e.fresh == "":
		return nil
	}
	if err := os.Remove(e.fresh); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EROFS) {
		return err
	}
	return nil
}

// likeOld gives f the owner, mode and label of the file at path.
func likeOld(f *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); errors.Is(err, unix.ENOENT) {
		return f.Chmod(0o644)
	} else if err != nil {
		return err
	}
	label := make([]byte, 1024)
	if n, err := unix.Getxattr(path, "security.selinux", label); err == nil {
		if err := unix.Fsetxattr(int(f.Fd()), "security.selinux", label[:n], 0); err != nil {
			return err
		}
	}
	return errors.Join(f.Chown(int(st.Uid), int(st.Gid)), f.Chmod(os.FileMode(st.Mode&0o7777)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
