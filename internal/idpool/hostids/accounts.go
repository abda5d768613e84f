package hostids

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// maxFile bounds what is read of a file of accounts: a million users fit.
const maxFile = 64 << 20

// account is a line of passwd or group.
type account struct {
	name string
	id   uint32 // uid of a user, gid of a group
	line int    // from 1
}

// subLine is a line of subuid or subgid, or a range that a name service knows:
// the ids from from up to, not including, to. One that cannot be used has no
// ids and says why.
type subLine struct {
	owner    string
	from, to uint64
	line     int    // from 1
	place    string // "line 3 of /etc/subuid"
	wrong    string
}

// set reads first and count. Numbers have to be decimal and to stay below
// 2^32-1, since what a wrong number would grant is somebody else's.
func (l *subLine) set(first, count string) {
	from, err1 := strconv.ParseUint(first, 10, 32)
	n, err2 := strconv.ParseUint(count, 10, 32)
	switch {
	case err1 != nil || err2 != nil:
		l.wrong = "its numbers are not decimal or too large"
	case n == 0:
		l.wrong = "its count is zero"
	case from+n > allIDs-1:
		l.wrong = "its ids go past 4294967294"
	default:
		l.from, l.to = from, from+n
	}
}

// parseSub reads subuid(5): lines of owner:first:count. Lines that are no
// entries at all are left out, as newuidmap(1) does.
func parseSub(text []byte) []subLine {
	var out []subLine
	number := 0
	for line := range bytes.Lines(text) {
		number++
		fields := strings.Split(strings.TrimRight(string(line), "\n"), ":")
		if len(fields) != 3 || fields[0] == "" {
			continue
		}
		entry := subLine{owner: fields[0], line: number}
		entry.set(fields[1], fields[2])
		out = append(out, entry)
	}
	return out
}

// parseAccounts reads passwd(5) or group(5). Lines without a number where the
// id should be, such as comments and those of NIS, are left out.
func parseAccounts(text []byte) []account {
	var out []account
	number := 0
	for line := range bytes.Lines(text) {
		number++
		fields := strings.Split(strings.TrimRight(string(line), "\n"), ":")
		if len(fields) < 4 || fields[0] == "" {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			continue
		}
		out = append(out, account{fields[0], uint32(id), number})
	}
	return out
}

func readSub(path string) ([]subLine, error) {
	text, err := readAccounts(path)
	lines := parseSub(text)
	for i := range lines {
		lines[i].place = fmt.Sprintf("line %d of %s", lines[i].line, path)
	}
	return lines, err
}

func accountsOf(path string) ([]account, error) {
	text, err := readAccounts(path)
	return parseAccounts(text), err
}

// number reads an id; Docker takes whatever looks like one for an id, also when
// a user of that name exists.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err == nil
}

// lookup returns the first account of that name or number.
func lookup(list []account, nameOrID string) (account, bool) {
	id, numeric := number(nameOrID)
	for _, a := range list {
		if numeric && a.id == id || !numeric && a.name == nameOrID {
			return a, true
		}
	}
	return account{}, false
}

// readAccounts reads a file that may be missing, which is as good as empty.
func readAccounts(path string) ([]byte, error) {
	text, err := readFile(path, maxFile, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return text, fault.Wrap(fault.Unavailable, "read accounts of", path, err,
		"ids are not granted while the host's own cannot be known")
}

// readFile reads a regular file of at most limit bytes. It does not wait on a
// pipe that somebody put there, nor read without end.
func readFile(path string, limit int64, flags int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	tooLarge := fmt.Errorf("it is larger than %d bytes", limit)
	if st.Size() > limit {
		return nil, tooLarge
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1)) // it may grow, and in /proc its size is 0
	if err == nil && int64(len(text)) > limit {
		err = tooLarge
	}
	return text, err
}
