package cli

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const paxXattr = "SCHILY.xattr."

// kept reports whether -a keeps an extended attribute: notes of users and ACLs.
func kept(attr string) bool {
	return strings.HasPrefix(attr, "user.") || attr == "system.posix_acl_access" || attr == "system.posix_acl_default"
}

// readAttrs adds the attributes of a local file to its header.
func (p *copying) readAttrs(f *os.File, h *tar.Header) {
	if !p.keepOwners {
		return
	}
	n := int(f.Fd())
	list := make([]byte, 64<<10) // no list is longer (listxattr(2), XATTR_LIST_MAX)
	size, err := unix.Flistxattr(n, list)
	if errors.Is(err, unix.ENOTSUP) {
		return
	}
	if err != nil {
		p.loses(f.Name(), "what its extended attributes are", err)
		return
	}
	for attr := range strings.SplitSeq(string(list[:size]), "\x00") {
		if !kept(attr) {
			continue
		}
		value := make([]byte, 64<<10) // nor any value (XATTR_SIZE_MAX)
		got, err := unix.Fgetxattr(n, attr, value)
		if err != nil || strings.Contains(attr, "=") { // which ends a record's name
			p.loses(f.Name(), attr, errors.Join(err, errors.New("no archive can have it")))
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+attr] = string(value[:got])
	}
}

// setAttrs gives a local file the attributes that its header has.
func (p *copying) setAttrs(f *os.File, h *tar.Header) {
	if !p.keepOwners {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		attr, is := strings.CutPrefix(key, paxXattr)
		if !is || !kept(attr) {
			continue
		}
		if err := unix.Fsetxattr(int(f.Fd()), attr, []byte(h.PAXRecords[key]), 0); err != nil {
			p.loses(f.Name(), attr, err)
		}
	}
}

// loses says what a copy has not.
func (p *copying) loses(name, what string, err error) {
	p.failed = true
	fmt.Fprintf(p.Err, "fief: %q of %q is not kept: %s\n", what, name, err)
}

// copySparse copies r into an empty file; blocks of zeroes become holes, as
// archives have them in full.
func copySparse(f *os.File, r io.Reader) (n int64, err error) {
	buf, zeroes := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		got, err := io.ReadFull(r, buf)
		if !bytes.Equal(buf[:got], zeroes[:got]) {
			if _, err := f.WriteAt(buf[:got], n); err != nil {
				return n, err
			}
		}
		n += int64(got)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return n, f.Truncate(n)
		}
		if err != nil {
			return n, err
		}
	}
}
