package hostids

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

const (
	remapFirst = 100000 // where Docker and useradd begin with subordinate ids
	// remapEnd keeps subordinate ids below 2^31: devpts parses ids as signed
	// numbers (UIDS-GIDS.md of systemd).
	remapEnd = 1 << 31
	// passwdWait is how long lckpwdf(3) waits.
	passwdWait = 15 * time.Second
)

// createRemapUser adds what is missing of the user dockremap: a group, a user
// that cannot log in, a line in subuid and one in subgid, in this order. Killed
// in between, the next call adds the rest. Nothing is run for it, since minimal
// hosts have neither adduser nor usermod.
func (f Files) createRemapUser(ctx context.Context) error {
	missing, err := f.missing(ctx)
	if err != nil || missing == (parts{}) && len(f.litter()) == 0 {
		return err
	}
	unlock, err := f.lockPasswd()
	if err != nil {
		if missing == (parts{}) {
			return nil
		}
		return err
	}
	defer unlock()
	for _, path := range f.litter() {
		_ = os.Remove(path) // if it is in the way, writing another will say so
	}
	missing, err = f.missing(ctx)
	if err != nil {
		return err
	}
	accounts, err := f.newAccount(ctx, missing)
	if err != nil {
		return err
	}
	ranges, err := f.newRanges(ctx, missing)
	if err != nil {
		return err
	}
	return apply(slices.Concat(accounts, ranges))
}

// litter returns the copies of files that a killed call has left.
func (f Files) litter() []string {
	var out []string
	for _, path := range []string{f.Passwd, f.Group, f.SubUID, f.SubGID} {
		if _, err := os.Lstat(copyOf(path)); err == nil {
			out = append(out, copyOf(path))
		}
	}
	return out
}

// parts are those of the user dockremap that the host does not have.
type parts struct{ group, user, subuid, subgid bool }

func (f Files) missing(ctx context.Context) (parts, error) {
	lacks := func(database string) (bool, error) {
		_, err := f.account(ctx, database, remapUser)
		if fault.Is(err, fault.NotFound) {
			return true, nil
		}
		return false, err
	}
	var out parts
	var err1, err2, err3, err4 error
	out.group, err1 = lacks("group")
	out.user, err2 = lacks("passwd")
	out.subuid, err3 = f.lacksRange(ctx, "uid")
	out.subgid, err4 = f.lacksRange(ctx, "gid")
	return out, cmp.Or(err1, err2, err3, err4)
}

func (f Files) lacksRange(ctx context.Context, kind string) (bool, error) {
	uid := ""
	if user, err := f.account(ctx, "passwd", remapUser); err == nil {
		uid = fmt.Sprint(user.id)
	}
	list, place, err := f.rangesOf(ctx, kind, remapUser, uid)
	if err != nil || len(list) > 0 {
		return false, err
	}
	if f.subidService() != "" {
		return true, f.none(fmt.Sprintf("no sub%s ranges found for user %q", kind, remapUser), remapUser, place)
	}
	return true, nil
}

// newAccount returns the lines of the group and the user that are missing.
func (f Files) newAccount(ctx context.Context, missing parts) ([]edit, error) {
	var out []edit
	if !missing.group && !missing.user {
		return nil, nil
	}
	id, err := f.freeID(ctx)
	if err != nil {
		return nil, err
	}
	gid := id
	if missing.group {
		out = append(out, edit{path: f.Group, line: fmt.Sprintf("%s:*:%d:", remapUser, gid)})
	} else {
		group, err := f.account(ctx, "group", remapUser)
		if err != nil {
			return nil, err
		}
		gid = group.id
	}
	if missing.user {
		out = append(out, edit{path: f.Passwd, line: fmt.Sprintf("%s:*:%d:%d::/nonexistent:/bin/false", remapUser, id, gid)})
	}
	return out, nil
}

// freeID is the highest system id that is neither a user's nor a group's:
// useradd counts down from SYS_UID_MAX, too.
func (f Files) freeID(ctx context.Context) (uint32, error) {
	users, err1 := accountsOf(f.Passwd)
	groups, err2 := accountsOf(f.Group)
	if err := cmp.Or(err1, err2); err != nil {
		return 0, err
	}
	var free []idmap.Host
	for id := uint32(999); id >= 100; id-- {
		is := func(a account) bool { return a.id == id }
		if !slices.ContainsFunc(users, is) && !slices.ContainsFunc(groups, is) {
			free = append(free, idmap.Host(id))
		}
	}
	for chunk := range slices.Chunk(free, askKeys) {
		known, err := f.NSS(ctx, chunk)
		if err != nil {
			return 0, f.notAsked(err)
		}
		for _, id := range chunk {
			if !slices.ContainsFunc(known, func(c Claim) bool { return c.From == uint64(id) }) {
				return uint32(id), nil
			}
		}
	}
	return 0, fault.New(fault.Exhausted, "add user", remapUser, "all system ids from 100 to 999 are taken", "add the user yourself")
}

// newRanges gives the user 65536 ids that no line, user, group, engine or
// process has and no fief daemon leases, the same in both files where both lack
// them. Docker since v28 looks only at root's lines, and so gives away the ids
// of the first human user.
func (f Files) newRanges(ctx context.Context, missing parts) ([]edit, error) {
	if !missing.subuid && !missing.subgid {
		return nil, nil
	}
	first, err := f.unclaimed(ctx)
	if err != nil {
		return nil, err
	}
	line := fmt.Sprintf("%s:%d:%d", remapUser, first, remapIDs)
	var out []edit
	if missing.subuid {
		out = append(out, edit{path: f.SubUID, line: line})
	}
	if missing.subgid {
		out = append(out, edit{path: f.SubGID, line: line})
	}
	return out, nil
}

// unclaimed returns the first of 65536 ids that nobody claims.
func (f Files) unclaimed(ctx context.Context) (uint64, error) {
	facts, err := f.Read(ctx)
	if err != nil {
		return 0, err
	}
	live, err := f.Live()
	if err != nil {
		return 0, err
	}
	used := append(facts.Claims, live...)
	if f.Leased != nil {
		leased, err := f.Leased()
		if err != nil {
			return 0, err
		}
		used = append(used, leased...)
	}
	for range 16 {
		first, ok := gap(used)
		if !ok {
			break
		}
		known, err := f.NSS(ctx, sample(first))
		if err != nil {
			return 0, f.notAsked(err)
		}
		known = slices.DeleteFunc(known, func(c Claim) bool { return c.To <= first || c.From >= first+remapIDs })
		if len(known) == 0 {
			return first, nil
		}
		used = append(used, Claim{From: first, To: first + remapIDs}) // where one is, more are
	}
	return 0, fault.New(fault.Exhausted, "find ids for user", remapUser, "no 65536 ids below 2147483648 are free", "")
}

// notAsked adds the way out to the error for a name service that does not say whose
// ids are: it may be those of its users that would be given away.
func (f Files) notAsked(err error) error {
	return fault.Wrap(fault.Unavailable, "choose ids for user", remapUser, err, fmt.Sprintf(
		"mend the name services of %s, or choose ids that they do not have: add the user and the group %s, and a line %s:FIRST:%d to %s and %s",
		f.NSSwitch, remapUser, remapUser, remapIDs, f.SubUID, f.SubGID))
}

// gap is the first of remapIDs ids that nobody claims.
func gap(used []Claim) (uint64, bool) {
	slices.SortFunc(used, func(a, b Claim) int { return cmp.Compare(a.From, b.From) })
	first := uint64(remapFirst)
	for _, c := range used {
		if c.From < first+remapIDs && first < c.To {
			first = c.To
		}
	}
	return first, first+remapIDs <= remapEnd
}

// sample is as many ids of a range as one process is asked for: what name
// services have assigned lies close together, or is where ranges begin.
func sample(first uint64) []idmap.Host {
	var out []idmap.Host
	for i := range uint64(askKeys) {
		out = append(out, idmap.Host(first+i*remapIDs/askKeys))
	}
	return out
}
