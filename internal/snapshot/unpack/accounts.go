package unpack

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"

	"fief/internal/kernel/at"
	"fief/internal/words/idmap"

	"golang.org/x/sys/unix"
)

// maxAccounts is how much of a layer's passwd and group is read. A line of it
// has some 50 bytes: 1 MiB is 20 thousand accounts.
const maxAccounts = 1 << 20

// noteAccounts notes the highest ids that the layer's own etc/passwd and
// etc/group name, by which the engine sizes a user namespace without mounting
// the image. Only regular files that no symbolic link leads to are opened: what
// a layer puts at these names may be a link to a pipe or a disk of the host,
// for whoever follows it (CVE-2024-9676).
func (f *Facts) noteAccounts(dir *os.File) error {
	passwd, err := readAccounts(dir, "etc/passwd")
	if err != nil {
		return err
	}
	group, err := readAccounts(dir, "etc/group")
	if err != nil {
		return err
	}
	f.PasswdUID, f.PasswdGID = 0, 0
	eachAccount(passwd, func(fields [][]byte) {
		f.PasswdUID = max(f.PasswdUID, accountID(fields, 2))
		f.PasswdGID = max(f.PasswdGID, accountID(fields, 3))
	})
	eachAccount(group, func(fields [][]byte) { f.PasswdGID = max(f.PasswdGID, accountID(fields, 2)) })
	return nil
}

// readAccounts returns the whole lines in the first part of a file, nothing
// when there is no regular file of that name.
func readAccounts(dir *os.File, name string) ([]byte, error) {
	regular, err := isRegular(dir, name)
	if err != nil || !regular {
		return nil, err
	}
	file, err := at.Beneath(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME) // O_NOATIME: the time is the tar's
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxAccounts))
	if err != nil {
		return nil, sysFault("read", name, err)
	}
	if len(text) == maxAccounts {
		text = text[:bytes.LastIndexByte(text, '\n')+1]
	}
	return text, nil
}

// isRegular looks at a name without opening what is there. Nothing else writes
// below dir: it is the same when it is opened.
func isRegular(dir *os.File, name string) (bool, error) {
	file, err := at.Beneath(dir, name, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return false, sysFault("look at", name, err)
	}
	return info.Mode().IsRegular(), nil
}

// eachAccount visits the fields of every line of a passwd(5) or group(5) that
// names an account. Comments and NIS's lines do not, and nobody and nogroup
// stand for ids that are not mapped, whatever their numbers are.
func eachAccount(text []byte, visit func(fields [][]byte)) {
	for line := range bytes.Lines(text) {
		fields := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(":"), 5)
		switch name := fields[0]; {
		case len(name) == 0, name[0] == '#', name[0] == '+', name[0] == '-':
		case string(name) == "nobody", string(name) == "nogroup":
		default:
			visit(fields)
		}
	}
}

// overflowID is what the kernel shows for ids that are not mapped
// (user_namespaces(7), "Unmapped user and group IDs"): no account of it wants
// to be mapped.
const overflowID = 65534

// accountID reads field i, 0 when it is none or no id to be mapped.
func accountID(fields [][]byte, i int) idmap.Inside {
	if i >= len(fields) || len(fields[i]) > 10 {
		return 0
	}
	id, err := strconv.ParseUint(string(fields[i]), 10, 32)
	if err != nil || id > idmap.Max || id == overflowID {
		return 0
	}
	return idmap.Inside(id)
}
