package idpool

import (
	"fmt"
	"strconv"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// remapUser is the user that the specification "default" stands for.
const remapUser = "dockremap"

// Remap resolves a userns-remap specification: user, uid, user:group, uid:gid
// or a mix, or "default". It returns the maps that the lines of the user in
// SubUID and SubGID make, laid from container id 0 upward in the order of the
// files, and the name of the specification as user:group. As in Docker, the
// group is only checked and named: the lines are the user's in both files, by
// name or by uid (moby, daemon/internal/usergroup/lookup_unix.go).
//
// "default" stands for the user dockremap. The user, its group and lines of
// 65536 ids are added to the files when they are missing, each file replaced at
// once, under the lock that shadow's tools and systemd take (lckpwdf(3)).
//
// The user root is refused, with class Invalid, as is what would map host id 0.
func Remap(spec string, files Config) (idmap.Pair, string, error) {
	cfg := files.withPaths()
	if spec == "default" {
		if err := createRemapUser(cfg); err != nil {
			return idmap.Pair{}, "", creationFault(err)
		}
		spec = remapUser
	}
	user, group, err := resolve(spec, cfg)
	if err != nil {
		return idmap.Pair{}, "", err
	}
	if user.id == 0 || user.name == "root" {
		return idmap.Pair{}, "", fault.New(fault.Invalid, "use userns-remap", spec, "root cannot be remapped with itself",
			`name a user that has lines in /etc/subuid and /etc/subgid, or "default"; for no remapping leave the option out`)
	}
	uids, err := userMap(cfg.SubUID, "uid", user)
	if err != nil {
		return idmap.Pair{}, "", err
	}
	gids, err := userMap(cfg.SubGID, "gid", user)
	return idmap.Pair{UID: uids, GID: gids}, user.name + ":" + group, err
}

// creationFault says err in Docker's words.
func creationFault(err error) error {
	said := fault.Say(fault.ClassOf(err), fmt.Sprintf("Error during %q user creation: %v", remapUser, err))
	said.Hint = fault.HintOf(err)
	return said
}

// resolve finds user and group with Docker's rules and words.
func resolve(spec string, cfg Config) (user account, group string, err error) {
	first, second, two := strings.Cut(spec, ":")
	if strings.Contains(second, ":") || first == "" || two && second == "" {
		return user, "", say(fault.Invalid, "Invalid user/group specification in --userns-remap: %q", spec)
	}
	users, err := accountsOf(cfg.Passwd)
	if err != nil {
		return user, "", err
	}
	groups, err := accountsOf(cfg.Group)
	if err != nil {
		return user, "", err
	}
	user, ok := lookup(users, first)
	uid, numeric := number(first)
	switch {
	case !ok && numeric:
		return user, "", say(fault.NotFound, "Uid %d has no entry in /etc/passwd: no matching entries in passwd file", uid)
	case !ok:
		return user, "", say(fault.NotFound, "Error during uid lookup for %q: no matching entries in passwd file", first)
	case !two:
		second = first // the group of the same name, or the gid of the same number
	}
	found, ok := lookup(groups, second)
	gid, numeric := number(second)
	switch {
	case ok:
		return user, found.name, nil
	case numeric:
		return user, "", say(fault.NotFound, "Gid %d has no entry in /etc/group: no matching entries in group file", gid)
	case two:
		return user, "", say(fault.NotFound, "Error during groupname lookup for %q: no matching entries in group file", second)
	}
	return user, "", say(fault.NotFound, "Error during gid lookup for %q: no matching entries in group file", second)
}

func say(class fault.Class, format string, args ...any) error {
	return fault.Say(class, fmt.Sprintf(format, args...))
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

// userMap lays the user's lines of a subuid or subgid file from container id 0
// upward.
func userMap(path, kind string, user account) (idmap.Map, error) {
	lines, err := readSub(path)
	if err != nil {
		return idmap.Map{}, err
	}
	var spans []idmap.Span
	next := uint64(0)
	for _, line := range lines {
		if line.owner != user.name && line.owner != strconv.FormatUint(uint64(user.id), 10) {
			continue
		}
		if line.wrong == "" && line.ids.from == 0 {
			line.wrong = "it gives away host id 0, root"
		}
		if line.wrong != "" {
			return idmap.Map{}, fault.New(fault.Invalid, "use line", fmt.Sprintf("%d of %s", line.line, path), line.wrong,
				"lines are USER:FIRST_ID:COUNT (subuid(5))")
		}
		n := line.ids.to - line.ids.from
		if next+n > idmap.Max+1 {
			return idmap.Map{}, fault.New(fault.Invalid, "use line", fmt.Sprintf("%d of %s", line.line, path), "the user has more than 4294967295 ids", "")
		}
		spans = append(spans, idmap.Span{In: idmap.Inside(next), Out: idmap.Host(line.ids.from), N: uint32(n)})
		next += n
	}
	if len(spans) == 0 {
		return idmap.Map{}, &fault.Error{Class: fault.Invalid,
			Cause: fmt.Errorf("error creating ID mappings: no sub%s ranges found for user %q", kind, user.name),
			Hint:  fmt.Sprintf("add a line %s:100000:65536, with ids that no other line has, to %s", user.name, path)}
	}
	m, err := idmap.New(spans...)
	return m, fault.Wrap(fault.Invalid, "use the lines of user "+user.name+" in", path, err, "")
}
