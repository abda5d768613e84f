package hostids

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// subidService is the name service that subordinate ids come from instead of
// the files, empty for the files. As in shadow's library only the first one
// counts, and there is only one (shadow, lib/nss.c).
func (f Files) subidService() string {
	services := parseNSSwitch(f.nsswitch())["subid"]
	if len(services) == 0 || services[0] == "files" {
		return ""
	}
	return services[0]
}

// readSubIDs claims what a name service gives to those whose ids would be missed
// most. It cannot be asked for all users. Lines of the files stay claimed: what
// somebody wrote there may be in use.
func (f Files) readSubIDs(ctx context.Context, out *Facts, service string) {
	for _, user := range []string{"fief", remapUser, "kubelet", "containers", "root"} {
		for i, kind := range [2]string{"uid", "gid"} {
			list, err := f.getsubids(ctx, kind, user)
			if err != nil {
				out.warn("subordinate ids of %s are not known: %v", service, err)
				out.Unknown = err
				return
			}
			for _, l := range list {
				if !slices.Contains(out.Owners, user) {
					out.Owners = append(out.Owners, user)
				}
				if l.wrong == "" {
					out.Claims = append(out.Claims, Claim{From: l.from, To: l.to, UID: i == 0, GID: i == 1,
						Kind: record.IDSub, Holder: user, Source: fmt.Sprintf("getsubids, %s", service)})
				}
			}
		}
	}
}

// getsubids asks for the ranges of a user, in the order in which they are
// printed. Not having any is no error: the program ends with 1 then, as it does
// when its service is out of reach.
func (f Files) getsubids(ctx context.Context, kind, user string) ([]subLine, error) {
	program := find(f.GetSubIDs, "getsubids")
	if program == "" {
		return nil, fault.New(fault.Unsupported, "look up subordinate ids of", user, "there is no program getsubids",
			fmt.Sprintf("%s says that they come from a name service: install getsubids (package uidmap or shadow-utils)", f.NSSwitch))
	}
	if strings.HasPrefix(user, "-") || strings.ContainsRune(user, 0) {
		return nil, nil
	}
	args := []string{user}
	if kind == "gid" {
		args = []string{"-g", user}
	}
	text, code, err := f.ask(ctx, f.granting, program, args...)
	if err == nil && code > 1 {
		err = fmt.Errorf("%s ended with %d", program, code)
	}
	return parseGetsubids(text), fault.Wrap(fault.Unavailable, "look up subordinate ids of", user, err, "")
}

// parseGetsubids reads lines of "0: ann 100000 65536" (shadow, src/getsubids.c).
func parseGetsubids(text []byte) []subLine {
	var out []subLine
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || !strings.HasSuffix(fields[0], ":") {
			continue
		}
		n := len(fields)
		l := subLine{owner: strings.Join(fields[1:n-2], " "), line: len(out) + 1}
		l.place = fmt.Sprintf("range %d that getsubids has for %s", l.line, l.owner)
		l.set(fields[n-2], fields[n-1])
		out = append(out, l)
	}
	return out
}

// rangesOf returns what a user has of subordinate ids, in the order of the file
// or of the name service, and where that is written. A line belongs to the user
// by name or by uid.
func (f Files) rangesOf(ctx context.Context, kind, name, uid string) (list []subLine, place string, err error) {
	if f.subidService() != "" {
		list, err = f.getsubids(ctx, kind, name)
		return list, f.NSSwitch, err
	}
	place = f.SubUID
	if kind == "gid" {
		place = f.SubGID
	}
	lines, err := readSub(place)
	for _, l := range lines {
		if l.owner == name || l.owner == uid {
			list = append(list, l)
		}
	}
	return list, place, err
}

// layOut makes a map of ranges, from container id 0 upward.
func layOut(list []subLine, name, place string) (idmap.Map, error) {
	var spans []idmap.Span
	next := uint64(0)
	for _, l := range list {
		if l.wrong == "" && l.from == 0 {
			l.wrong = "it gives away host id 0, root"
		}
		if l.wrong != "" {
			return idmap.Map{}, fault.New(fault.Invalid, "use", l.place, l.wrong, "lines are USER:FIRST_ID:COUNT (subuid(5))")
		}
		n := l.to - l.from
		if next+n > idmap.Max+1 {
			return idmap.Map{}, fault.New(fault.Invalid, "use", l.place, "the user has more than 4294967295 ids", "")
		}
		spans = append(spans, idmap.Span{In: idmap.Inside(next), Out: idmap.Host(l.from), N: uint32(n)})
		next += n
	}
	m, err := idmap.New(spans...)
	return m, fault.Wrap(fault.Invalid, "use the lines of user "+name+" in", place, err, "")
}

// none is the error for a user without ranges, in the given words.
func (f Files) none(words, name, place string) error {
	hint := fmt.Sprintf("add a line %s:100000:65536, with ids that no other line has, to %s", name, place)
	if service := f.subidService(); service != "" {
		hint = fmt.Sprintf("%s says that subordinate ids come from %s alone: give %s a range there", f.NSSwitch, service, name)
	}
	return &fault.Error{Class: fault.Invalid, Cause: errors.New(words), Hint: hint}
}

// Named returns the maps for --subuidname and --subgidname: the ranges of a
// user in the order of the file, laid from container id 0 upward. Each is a name
// or a uid, which lines are matched by; when one of the two is empty the other
// stands for both. A line may belong to a name that no user has.
//
// As Podman documents it, and as it does not do: there the two names are
// exchanged when they differ (podman, cmd/podman/common/create.go), and the
// ranges are sorted.
//
// Errors are of class Invalid for a user without ranges, in Podman's words, for
// lines that are wrong or give away host id 0, and for no name at all.
func Named(subuid, subgid string, f Files) (idmap.Pair, error) {
	f = f.complete()
	subuid, subgid = cmp.Or(subuid, subgid), cmp.Or(subgid, subuid)
	if subuid == "" {
		return idmap.Pair{}, fault.New(fault.Invalid, "use subordinate ids", "", "no user is named", "write --subuidname NAME")
	}
	uids, err := f.namedMap("uid", "user", subuid)
	if err != nil {
		return idmap.Pair{}, err
	}
	gids, err := f.namedMap("gid", "group", subgid)
	return idmap.Pair{UID: uids, GID: gids}, err
}

func (f Files) namedMap(kind, who, name string) (idmap.Map, error) {
	ctx := context.Background()
	user, uid := name, ""
	switch a, err := f.account(ctx, "passwd", name); {
	case err == nil:
		user, uid = a.name, strconv.FormatUint(uint64(a.id), 10)
	case !fault.Is(err, fault.NotFound):
		return idmap.Map{}, err
	}
	list, place, err := f.rangesOf(ctx, kind, user, uid)
	if err != nil {
		return idmap.Map{}, err
	}
	if len(list) == 0 {
		return idmap.Map{}, f.none(fmt.Sprintf("no sub%s ranges found for %s %q in %s", kind, who, name, place), name, place)
	}
	return layOut(list, name, place)
}
