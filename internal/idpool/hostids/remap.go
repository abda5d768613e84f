package hostids

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// remapUser is the user that the specification "default" stands for.
const remapUser = "dockremap"

// Remap resolves a userns-remap specification: user, uid, user:group, uid:gid
// or a mix, or "default". It returns the maps that the ranges of the user in
// SubUID and SubGID make, laid from container id 0 upward in the order of the
// files, and the name of the specification as user:group. As in Docker, the
// group is only checked and named: the lines are the user's in both files, by
// name or by uid (moby, daemon/internal/usergroup/lookup_unix.go). Users and
// groups that the files do not have are looked for with getent(1), and the
// ranges come from getsubids(1) when nsswitch.conf says that they are not in the
// files.
//
// "default" stands for the user dockremap. The user, its group and lines of
// 65536 ids are added to the files when they are missing: all of them or none,
// under the lock that shadow's tools and systemd take (lckpwdf(3)).
//
// The user root is refused, with class Invalid, as is what would map host id 0.
func Remap(spec string, f Files) (idmap.Pair, string, error) {
	ctx := context.Background()
	f = f.complete()
	first, second, two := strings.Cut(spec, ":")
	if strings.Contains(second, ":") || first == "" || two && second == "" {
		return idmap.Pair{}, "", say(fault.Invalid, "Invalid user/group specification in --userns-remap: %q", spec)
	}
	if first == "default" {
		if err := f.createRemapUser(ctx); err != nil {
			return idmap.Pair{}, "", inWords(err, "Error during %q user creation", remapUser)
		}
		first = remapUser
	}
	user, group, err := f.resolve(ctx, first, second)
	if err != nil {
		return idmap.Pair{}, "", err
	}
	if user.id == 0 || user.name == "root" {
		return idmap.Pair{}, "", fault.New(fault.Invalid, "use userns-remap", spec, "root cannot be remapped with itself",
			`name a user that has lines in /etc/subuid and /etc/subgid, or "default"; for no remapping leave the option out`)
	}
	uids, err := f.userMap(ctx, "uid", user)
	if err != nil {
		return idmap.Pair{}, "", err
	}
	gids, err := f.userMap(ctx, "gid", user)
	return idmap.Pair{UID: uids, GID: gids}, user.name + ":" + group, err
}

// resolve finds user and group with Docker's rules and words (moby,
// daemon/daemon_unix.go, parseRemappedRoot). Without a group it is that of the
// user's name, or the one with the user's number when that was given.
func (f Files) resolve(ctx context.Context, first, second string) (user account, group string, err error) {
	user, err = f.account(ctx, "passwd", first)
	if err != nil {
		if uid, numeric := number(first); numeric {
			return user, "", inWords(err, "Uid %d has no entry in /etc/passwd", uid)
		}
		return user, "", inWords(err, "Error during uid lookup for %q", first)
	}
	two := second != ""
	if !two {
		second = first
	}
	found, err := f.account(ctx, "group", second)
	gid, numeric := number(second)
	switch {
	case err == nil:
		return user, found.name, nil
	case numeric && two:
		return user, "", inWords(err, "Gid %d has no entry in /etc/passwd", gid) // passwd: sic
	case numeric:
		return user, "", inWords(err, "Gid %d has no entry in /etc/group", gid)
	case two:
		return user, "", inWords(err, "Error during groupname lookup for %q", second)
	}
	return user, "", inWords(err, "Error during gid lookup for %q", second)
}

// userMap lays the user's ranges from container id 0 upward.
func (f Files) userMap(ctx context.Context, kind string, user account) (idmap.Map, error) {
	list, place, err := f.rangesOf(ctx, kind, user.name, strconv.FormatUint(uint64(user.id), 10))
	if err != nil {
		return idmap.Map{}, err
	}
	if len(list) == 0 {
		return idmap.Map{}, f.none(fmt.Sprintf("error creating ID mappings: no sub%s ranges found for user %q", kind, user.name), user.name, place)
	}
	return layOut(list, user.name, place)
}
