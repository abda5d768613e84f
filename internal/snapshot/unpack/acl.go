package unpack

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// The attributes that hold POSIX ACLs (acl(5)), and the records by which star
// and GNU tar write the same as text. An archive of GNU tar has both when it
// was told to keep extended attributes too: then the attribute counts.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	paxACL     = "SCHILY.acl."
)

// paxACLs are the records and what they become.
var paxACLs = [...][2]string{{paxACL + "access", aclAccess}, {paxACL + "default", aclDefault}}

// The tags of ACL entries, in the order the kernel wants them
// (linux/posix_acl.h), and the id of entries that have none.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20

	aclNoID    = 1<<32 - 1
	aclVersion = 2
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// ACLOfText turns the text form of an ACL (acl(5), "ACL TEXT FORMS"; one line
// or comma each, and star's fourth field, the numeric id) into the attribute's
// value. It is nil for an ACL that says no more than a mode does. A name without
// a number is refused: whose name it is, only the machine knows that the
// archive comes from.
func ACLOfText(text string) ([]byte, error) {
	var entries []aclEntry
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == ',' }) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		e, err := aclEntryOf(line)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 || isMode(entries) {
		return nil, nil
	}
	slices.SortFunc(entries, func(a, b aclEntry) int { return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id)) })
	out := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return out, nil
}

// isMode reports whether the entries are no more than the three of a mode.
func isMode(entries []aclEntry) bool {
	return !slices.ContainsFunc(entries, func(e aclEntry) bool { return e.tag == aclUser || e.tag == aclGroup || e.tag == aclMask })
}

func aclEntryOf(line string) (aclEntry, error) {
	fields := strings.Split(line, ":")
	if len(fields) == 2 { // "mask:rwx", "other:r--"
		fields = []string{fields[0], "", fields[1]}
	}
	if len(fields) < 3 || len(fields) > 4 {
		return aclEntry{}, errors.New("its ACL has an entry of no known form")
	}
	e := aclEntry{id: aclNoID}
	var err error
	if e.tag, err = aclTag(fields[0], fields[1] != ""); err != nil {
		return e, err
	}
	if e.perm, err = aclPerm(fields[2]); err != nil {
		return e, err
	}
	if fields[1] != "" {
		e.id, err = aclID(fields[1:])
	}
	return e, err
}

func aclTag(word string, named bool) (uint16, error) {
	switch {
	case word == "user" || word == "u":
		return either(named, aclUser, aclUserObj), nil
	case word == "group" || word == "g":
		return either(named, aclGroup, aclGroupObj), nil
	case (word == "mask" || word == "m") && !named:
		return aclMask, nil
	case (word == "other" || word == "o") && !named:
		return aclOther, nil
	}
	return 0, errors.New("its ACL has an entry for nobody known")
}

func either(yes bool, a, b uint16) uint16 {
	if yes {
		return a
	}
	return b
}

func aclPerm(word string) (perm uint16, err error) {
	for _, c := range word {
		switch c {
		case 'r':
			perm |= 4
		case 'w':
			perm |= 2
		case 'x':
			perm |= 1
		case '-', ' ', '\t':
		default:
			return 0, errors.New("its ACL has unknown permissions")
		}
	}
	return perm, nil
}

// aclID reads name, permissions and, where there is one, the number of an entry.
func aclID(fields []string) (uint32, error) {
	word := fields[0]
	if len(fields) == 3 && fields[2] != "" {
		word = fields[2]
	}
	id, err := strconv.ParseUint(word, 10, 32)
	if err != nil || !isID(int(id)) {
		return 0, errors.New("its ACL names an account by name only: make the archive with numeric owners")
	}
	return uint32(id), nil
}
