package idpool

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
	gid  uint32 // primary group of a user
}

// subLine is a line of subuid or subgid. A line that cannot be used has no ids
// and says why.
type subLine struct {
	owner string
	ids   extent
	line  int // from 1
	wrong string
}

// parseSub reads subuid(5): lines of owner:first:count. Lines that are no
// entries at all are left out, as newuidmap(1) does; numbers have to be
// decimal and to stay below 2^32-1, since what a wrong number would grant is
// somebody else's.
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
		first, err1 := strconv.ParseUint(fields[1], 10, 32)
		count, err2 := strconv.ParseUint(fields[2], 10, 32)
		switch {
		case err1 != nil || err2 != nil:
			entry.wrong = "its numbers are not decimal or too large"
		case count == 0:
			entry.wrong = "its count is zero"
		case first+count > allIDs-1:
			entry.wrong = "its ids go past 4294967294"
		default:
			entry.ids = extent{first, first + count}
		}
		out = append(out, entry)
	}
	return out
}

// parseAccounts reads passwd(5) or group(5). Lines without a number where the
// id should be, such as comments and those of NIS, are left out.
func parseAccounts(text []byte) []account {
	var out []account
	for line := range bytes.Lines(text) {
		fields := strings.Split(strings.TrimRight(string(line), "\n"), ":")
		if len(fields) < 4 || fields[0] == "" {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			continue
		}
		gid, _ := strconv.ParseUint(fields[3], 10, 32) // members, in group
		out = append(out, account{fields[0], uint32(id), uint32(gid)})
	}
	return out
}

func readSub(path string) ([]subLine, error) {
	text, err := readAccounts(path)
	return parseSub(text), err
}

// readAccounts reads a file that may be missing, which is as good as empty. It
// does not wait on a pipe that somebody put there, nor read without end.
func readAccounts(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, cannotRead(path, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, cannotRead(path, cmpErr(err, errors.New("it is not a regular file")))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("it is larger than %d MiB", maxFile>>20)
	}
	return text, cannotRead(path, err)
}

func cannotRead(path string, err error) error {
	return fault.Wrap(fault.Unavailable, "read accounts of", path, err,
		"ids are not granted while the host's own cannot be known")
}

func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
