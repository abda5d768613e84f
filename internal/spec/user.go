package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// maxIDFile bounds /etc/passwd and /etc/group of an image, which are hostile.
const maxIDFile = 8 << 20

// LookupUser finds who "user[:group]" is by the files of the image below root,
// a directory; empty is root. groups are additional groups by name or id. A
// numeric user needs no entry and is never taken for a name. home is "/" when
// nobody says better. extra does not hold gid.
//
// Errors are Invalid, in Docker's words: `unable to find user X: no matching
// entries in passwd file`. Symbolic links are resolved inside root, and files
// that are not regular ones are refused, not opened.
func LookupUser(root *os.File, name string, groups []string) (uid, gid uint32, extra []uint32, home string, err error) {
	passwd, err := ReadIDFile(root, "etc/passwd")
	if err != nil {
		return 0, 0, nil, "", err
	}
	group, err := ReadIDFile(root, "etc/group")
	if err != nil {
		return 0, 0, nil, "", err
	}
	return lookup(passwd, group, name, groups)
}

// lookup works on the contents of the files; nil means that there is none.
func lookup(passwd, group []byte, name string, groups []string) (uid, gid uint32, extra []uint32, home string, err error) {
	found, err := user.GetExecUser(name, nil, reader(passwd), reader(group))
	if err != nil {
		return 0, 0, nil, "", fault.Say(fault.Invalid, err.Error())
	}
	ids := append([]int{found.Uid, found.Gid}, found.Sgids...)
	for _, g := range groups { // one by one: the answer for several has no order
		if g == "" { // GetAdditionalGroups would panic
			return 0, 0, nil, "", fault.Say(fault.Invalid, "unable to find group : "+user.ErrNoGroupEntries.Error())
		}
		more, err := user.GetAdditionalGroups([]string{g}, reader(group))
		if err != nil {
			return 0, 0, nil, "", fault.Say(fault.Invalid, err.Error())
		}
		ids = append(ids, more...)
	}
	for _, id := range ids {
		// Entries of the files are not checked above. 2^32-1 would mean "leave
		// as it is" to setresuid(2).
		if id < 0 || int64(id) > 1<<31-1 {
			return 0, 0, nil, "", fault.Say(fault.Invalid, fmt.Sprintf("unable to find user %s: %v", name, user.ErrRange))
		}
	}
	for _, id := range ids[2:] {
		if id != found.Gid && !slices.Contains(extra, uint32(id)) {
			extra = append(extra, uint32(id))
		}
	}
	home = found.Home
	if home == "" {
		home = "/"
	}
	return uint32(found.Uid), uint32(found.Gid), extra, home, nil
}

// reader is nil, not a nil pointer, where there is no file.
func reader(text []byte) io.Reader {
	if text == nil {
		return nil
	}
	return bytes.NewReader(text)
}

// ReadIDFile reads a file below root, a directory, nil when there is none. It
// has at most 8 MiB. It is first
// opened as a path: opening a device or a pipe of the image could do or wait
// for anything.
func ReadIDFile(root *os.File, name string) ([]byte, error) {
	fd, err := openIn(root, name)
	switch {
	case err == unix.ENOENT, err == unix.ENOTDIR:
		return nil, nil
	case err != nil:
		return nil, fault.Wrap(fault.Invalid, "open in image", name, err, "")
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fault.Wrap(fault.Internal, "stat in image", name, err, "")
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fault.New(fault.Invalid, "read in image", name, "it is not a regular file", "")
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "open in image", name, err, "")
	}
	defer f.Close()
	return ReadBounded(f)
}

// ReadBounded reads a file of accounts, of at most 8 MiB, to its end.
func ReadBounded(f *os.File) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(f, maxIDFile+1))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "read in image", f.Name(), err, "")
	}
	if len(text) > maxIDFile {
		return nil, fault.New(fault.Invalid, "read in image", f.Name(), "it is larger than 8 MiB", "")
	}
	return text, nil
}

// openIn resolves name inside root. EAGAIN means that a rename or mount went
// on meanwhile (openat2(2)).
func openIn(root *os.File, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range 128 {
		fd, err := unix.Openat2(int(root.Fd()), name, &how)
		if !errors.Is(err, unix.EAGAIN) && err != unix.EINTR {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}
