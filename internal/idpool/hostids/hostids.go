// Package hostids reads what a host says about its ids: whose they are already,
// by the files of accounts and of subordinate ids, by name services, by what
// other engines have noted, and by what processes use.
package hostids

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/record"
)

// allIDs is one more than the largest number that fits an id.
const allIDs = 1 << 32

// Claim is the ids from From up to, not including, To that somebody of the host
// has; To is at most 2^32.
type Claim struct {
	From, To uint64
	UID, GID bool          // of which kinds of ids
	Kind     record.IDKind // user, subid, engine or process
	Holder   string        // the user, the engine, the command of the process
	Source   string        // where it is said: a file and line, a directory, a process
}

// Files says where the host keeps its accounts, and which programs know more.
// Zero values stand for the defaults named.
type Files struct {
	SubUID, SubGID, Passwd, Group string // default /etc/subuid, /etc/subgid, /etc/passwd, /etc/group
	NSSwitch                      string // default /etc/nsswitch.conf
	Proc                          string // default /proc
	Root                          string // below which the state of other engines is looked for; default /

	Getent, GetSubIDs string // the programs getent(1) and getsubids(1); default: found in PATH

	// Leased returns the ids that fief daemons may lease, which a new user is not
	// to be given. Nil stands for none.
	Leased func() ([]Claim, error)

	lockWait time.Duration // how long the lock of accounts is waited for; default passwdWait
	patience time.Duration // how long a program may take when nothing depends on it; default askTime
	granting time.Duration // how long one may otherwise; default grantTime
}

func (f Files) complete() Files {
	f.SubUID = cmp.Or(f.SubUID, "/etc/subuid")
	f.SubGID = cmp.Or(f.SubGID, "/etc/subgid")
	f.Passwd = cmp.Or(f.Passwd, "/etc/passwd")
	f.Group = cmp.Or(f.Group, "/etc/group")
	f.NSSwitch = cmp.Or(f.NSSwitch, "/etc/nsswitch.conf")
	f.Proc = cmp.Or(f.Proc, "/proc")
	f.Root = cmp.Or(f.Root, "/")
	f.lockWait = cmp.Or(f.lockWait, passwdWait)
	f.patience = cmp.Or(f.patience, askTime)
	f.granting = cmp.Or(f.granting, grantTime)
	return f
}

// below is a path of another engine.
func (f Files) below(path string) string { return filepath.Join(f.Root, path) }

// Facts is what files and name services say of the host's ids.
type Facts struct {
	Claims []Claim // of users, groups, lines and other engines, in no order; they may overlap
	// Owners are the holders of lines in subuid and subgid, and of ranges that a
	// name service has for the users that are asked for: also those whose lines
	// cannot be used.
	Owners   []string
	Warnings []string // what could not be known; nothing is claimed for it
	// Unknown is why the subordinate ids that a name service has are not known, the
	// ranges of user fief among them; nil when they are.
	Unknown error
}

func (f *Facts) warn(format string, args ...any) {
	f.Warnings = append(f.Warnings, fmt.Sprintf(format, args...))
}

// Read reads everything but the processes. That one of the four files of
// accounts cannot be read is an error of class Unavailable; damaged state of
// another engine, a wrong line and a name service that does not answer are
// warnings.
func (f Files) Read(ctx context.Context) (Facts, error) {
	f = f.complete()
	var out Facts
	names, err := f.readUsers(&out)
	if err != nil {
		return Facts{}, err
	}
	if err := f.readLines(&out, names); err != nil {
		return Facts{}, err
	}
	if service := f.subidService(); service != "" {
		f.readSubIDs(ctx, &out, service)
	}
	f.readEngines(&out)
	return out, nil
}

// readUsers claims the ids of users and groups, and returns the users' names.
func (f Files) readUsers(out *Facts) (map[string]string, error) {
	names := map[string]string{}
	for i, path := range [2]string{f.Passwd, f.Group} {
		list, err := accountsOf(path)
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			id := strconv.FormatUint(uint64(a.id), 10)
			if _, known := names[id]; i == 0 && !known {
				names[id] = a.name
			}
			out.Claims = append(out.Claims, Claim{From: uint64(a.id), To: uint64(a.id) + 1, UID: i == 0, GID: i == 1,
				Kind: record.IDUser, Holder: a.name, Source: fmt.Sprintf("%s:%d", path, a.line)})
		}
	}
	return names, nil
}

// readLines claims what the lines of subuid and subgid give away. The owner of
// a line may be written as a name or as a uid (subuid(5)).
func (f Files) readLines(out *Facts, names map[string]string) error {
	for i, path := range [2]string{f.SubUID, f.SubGID} {
		lines, err := readSub(path)
		if err != nil {
			return err
		}
		for _, l := range lines {
			holder := cmp.Or(names[l.owner], l.owner)
			if !slices.Contains(out.Owners, holder) {
				out.Owners = append(out.Owners, holder)
			}
			if l.wrong != "" {
				out.warn("%s of user %s is not used: %s", l.place, holder, l.wrong)
				continue
			}
			out.Claims = append(out.Claims, Claim{From: l.from, To: l.to, UID: i == 0, GID: i == 1,
				Kind: record.IDSub, Holder: holder, Source: fmt.Sprintf("%s:%d", path, l.line)})
		}
	}
	return nil
}

// Watch is the places that Signature looks at.
type Watch [10]string

// Signature tells whether something that Read reads has changed since.
type Signature [len(Watch{})]struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// Watch names the files of accounts and, of other engines, the directories in
// which a new container makes an entry, or whose records are replaced as a
// whole, at their default places. Not noticed until something else changes: a
// configuration of LXC that is edited in place, engines with a data directory of
// their own, name services.
func (f Files) Watch() Watch {
	f = f.complete()
	return Watch{
		f.SubUID, f.SubGID, f.Passwd, f.Group, f.NSSwitch,
		f.below(kubeletPods), f.below(containersRoot + "/overlay-containers"), f.below(dockerRoot), f.below(lxcRoot), f.below(machinesRoot),
	}
}

// Signature costs ten stat(2). What cannot be looked at looks like what is
// missing; reading it says what is wrong.
func (w *Watch) Signature() Signature {
	var out Signature
	for i, path := range w {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			continue
		}
		s := &out[i]
		s.dev, s.ino, s.size, s.mtime, s.ctime = st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim
	}
	return out
}
