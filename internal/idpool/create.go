package idpool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

const (
	remapFirst = 100000 // where Docker and useradd begin with subordinate ids
	remapCount = 65536
	// passwdWait is how long lckpwdf(3) waits.
	passwdWait = 15 * time.Second
)

// createRemapUser adds what is missing of the user dockremap: a group, a user
// that cannot log in, a line in subuid and one in subgid, in this order. Killed
// in between, the next call adds the rest. Nothing is run for it, since minimal
// hosts have neither adduser nor usermod.
func createRemapUser(cfg Config) error {
	if done, err := hasRemapUser(cfg); done || err != nil {
		return err
	}
	unlock, err := lockPasswd(filepath.Dir(cfg.Passwd))
	if err != nil {
		return err
	}
	defer unlock()
	if err := createAccount(cfg); err != nil {
		return err
	}
	return createRanges(cfg)
}

func hasRemapUser(cfg Config) (bool, error) {
	users, err := accountsOf(cfg.Passwd)
	if err != nil {
		return false, err
	}
	groups, err := accountsOf(cfg.Group)
	if err != nil {
		return false, err
	}
	_, okUser := lookup(users, remapUser)
	_, okGroup := lookup(groups, remapUser)
	missing, err := missingRanges(cfg)
	return okUser && okGroup && len(missing) == 0, err
}

// missingRanges returns which of the two files have no line of the user.
func missingRanges(cfg Config) ([]string, error) {
	users, err := accountsOf(cfg.Passwd)
	if err != nil {
		return nil, err
	}
	owners := []string{remapUser}
	if user, ok := lookup(users, remapUser); ok {
		owners = append(owners, fmt.Sprint(user.id))
	}
	var out []string
	for _, path := range []string{cfg.SubUID, cfg.SubGID} {
		lines, err := readSub(path)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(lines, func(l subLine) bool { return slices.Contains(owners, l.owner) }) {
			out = append(out, path)
		}
	}
	return out, nil
}

func createAccount(cfg Config) error {
	users, err := accountsOf(cfg.Passwd)
	if err != nil {
		return err
	}
	groups, err := accountsOf(cfg.Group)
	if err != nil {
		return err
	}
	id, ok := freeID(users, groups)
	if !ok {
		return fault.New(fault.Exhausted, "add user", remapUser, "all system ids from 100 to 999 are taken", "add the user yourself")
	}
	group, hasGroup := lookup(groups, remapUser)
	if !hasGroup {
		group.id = id
		if err := appendLine(cfg.Group, fmt.Sprintf("%s:*:%d:", remapUser, id)); err != nil {
			return err
		}
	}
	if _, ok := lookup(users, remapUser); ok {
		return nil
	}
	return appendLine(cfg.Passwd, fmt.Sprintf("%s:*:%d:%d::/nonexistent:/bin/false", remapUser, id, group.id))
}

// freeID is the highest system id that is neither a user's nor a group's:
// useradd counts down from SYS_UID_MAX, too.
func freeID(users, groups []account) (uint32, bool) {
	for id := uint32(999); id >= 100; id-- {
		is := func(a account) bool { return a.id == id }
		if !slices.ContainsFunc(users, is) && !slices.ContainsFunc(groups, is) {
			return id, true
		}
	}
	return 0, false
}

// createRanges gives the user 65536 ids that no line, user, group or process
// has and no fief daemon leases. Docker since v28 looks only at root's lines,
// and so gives away the ids of the first human user.
func createRanges(cfg Config) error {
	missing, err := missingRanges(cfg)
	if err != nil || len(missing) == 0 {
		return err
	}
	f, err := host{cfg}.read()
	if err != nil {
		return err
	}
	live, err := host{cfg}.live()
	if err != nil {
		return err
	}
	all, err := claims{dir: cfg.ClaimDir}.list()
	if err != nil {
		return err
	}
	used := slices.Concat(f.taken, f.own, live)
	for number, c := range all {
		used = append(used, leasable(number, c.ranges)...)
	}
	first, ok := gap(union(used))
	if !ok {
		return fault.New(fault.Exhausted, "find ids for user", remapUser, "no 65536 ids below 2147483648 are free", "")
	}
	for _, path := range missing {
		if err := appendLine(path, fmt.Sprintf("%s:%d:%d", remapUser, first, remapCount)); err != nil {
			return err
		}
	}
	return nil
}

// leasable returns the ids of a slab's ranges in mask.
func leasable(number int, mask uint64) extents {
	var out extents
	for i := range uint64(slabRanges) {
		if mask>>i&1 == 1 {
			from := uint64(number)*slabIDs + i*rangeIDs
			out = append(out, extent{from, from + rangeIDs})
		}
	}
	return out
}

// gap is the first of remapCount ids that are not used.
func gap(used extents) (uint64, bool) {
	first := uint64(remapFirst)
	for _, e := range used {
		if e.from < first+remapCount && first < e.to {
			first = e.to
		}
	}
	return first, first+remapCount <= lastBase+rangeIDs
}

// lockPasswd takes the lock of lckpwdf(3): a write lock on .pwd.lock. An open
// file description lock excludes the process locks of other programs, and,
// unlike those, also other goroutines (fcntl(2)).
func lockPasswd(dir string) (unlock func(), err error) {
	const op = "lock accounts by"
	path := filepath.Join(dir, ".pwd.lock")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Denied, op, path, err, "add the user "+remapUser+" yourself, or name another one")
	}
	for deadline := time.Now().Add(passwdWait); ; time.Sleep(20 * time.Millisecond) {
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			f.Close()
			return nil, fault.Wrap(fault.Busy, op, path, err, "another program is changing users: try again")
		}
	}
}

// appendLine adds a line to a file of accounts by putting a complete copy in
// its place, with the mode, owner and SELinux label it has. A missing file is
// made, mode 0644. Preconditions: the lock of accounts is held.
func appendLine(path, line string) error {
	err := tryAppendLine(path, line)
	return fault.Wrap(fault.Denied, "add a line to", path, err, "add this line yourself: "+line)
}

func tryAppendLine(path, line string) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	text, err := readAccounts(path)
	if err != nil {
		return err
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	text = append(text, line+"\n"...)
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".fief")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, likeOld(f, path), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return syncDir(filepath.Dir(path))
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
