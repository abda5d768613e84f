package check

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

const (
	poolUser = "fief"    // its lines, where there are any, are the pool
	rangeIDs = 65536     // ids of a range, to multiples of which they are aligned
	signed   = 1 << 31   // ids from here on are negative to what takes them for an int
	few      = 16        // free ranges
	maxSaid  = 4         // lines that one check names
	made     = "default" // the user of userns-remap that the daemon makes
)

// subLine is a line of subuid(5): the ids from From up to, not including, To.
type subLine struct {
	owner    string
	where    string // file and line
	from, to uint64
}

// parseSub reads a file of subordinate ids. Lines that are none are returned as
// problems: programs that read the file skip them silently.
func parseSub(file, text string) (lines []subLine, problems []string) {
	n := 0
	for raw := range strings.Lines(text) {
		n++
		line := strings.TrimSpace(raw)
		where := fmt.Sprintf("%s:%d", file, n)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, ":")
		if len(fields) != 3 || fields[0] == "" {
			problems = append(problems, where+": not NAME:FIRST:COUNT")
			continue
		}
		from, err := strconv.ParseUint(fields[1], 10, 32)
		count, err2 := strconv.ParseUint(fields[2], 10, 32)
		switch {
		case err != nil || err2 != nil:
			problems = append(problems, where+": not a number from 0 to 4294967295")
		case count == 0:
			problems = append(problems, where+": a range of no ids")
		case from+count-1 > idmap.Max:
			problems = append(problems, where+": it goes past 4294967294, the last id")
		default:
			lines = append(lines, subLine{fields[0], where, from, from + count})
		}
	}
	return lines, problems
}

// ids looks at the files of subordinate ids, at who of the host's users is in
// them, and at what they leave of the pool.
func ids(o Options) (out []record.Check) {
	users := passwd(o)
	var all [][]subLine
	for _, file := range []string{o.SubUID, o.SubGID} {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			out = append(out, record.Check{Group: IDs, Name: file, State: record.CheckFail, Found: err.Error(), Why: "no range can be granted safely"})
		}
		lines, problems := parseSub(file, string(text))
		all = append(all, lines)
		out = append(out, fileOf(file, lines, problems, err))
		out = append(out, overlaps(file, lines)...)
		out = append(out, high(file, lines)...)
		if file == o.SubUID {
			out = append(out, onUsers(file, lines, users)...)
		}
	}
	out = append(out, remap(o, all, users)...)
	return append(out, free(o, all))
}

func fileOf(file string, lines []subLine, problems []string, err error) record.Check {
	c := record.Check{Group: IDs, Name: file, State: record.CheckOK, Found: fmt.Sprintf("%d ranges", len(lines))}
	switch {
	case errors.Is(err, os.ErrNotExist):
		c.State, c.Found = record.CheckInfo, "there is none: the whole default pool is fief's"
	case problems != nil:
		c.State, c.Found = record.CheckWarn, some(problems)
		c.Why, c.Fix = "lines that cannot be read are skipped, so that their ids seem free", "correct or remove the lines"
	}
	return c
}

// some joins the first few of a list and says how many are left out.
func some(list []string) string {
	if len(list) > maxSaid {
		return strings.Join(list[:maxSaid], "; ") + fmt.Sprintf("; and %d more", len(list)-maxSaid)
	}
	return strings.Join(list, "; ")
}

// overlaps finds ranges of different users that share ids: what one of them
// owns the other may change.
func overlaps(file string, lines []subLine) []record.Check {
	sorted := slices.Clone(lines)
	slices.SortStableFunc(sorted, func(a, b subLine) int { return cmp.Compare(a.from, b.from) })
	var found []string
	for i, a := range sorted {
		for _, b := range sorted[i+1:] {
			if b.from >= a.to || len(found) > maxSaid*2 {
				break
			}
			if a.owner != b.owner {
				found = append(found, fmt.Sprintf("%s (%s) and %s (%s) share %d–%d", a.owner, a.where, b.owner, b.where, b.from, min(a.to, b.to)-1))
			}
		}
	}
	if found == nil {
		return nil
	}
	return []record.Check{{
		Group: IDs, Name: "users that share ids in " + file, State: record.CheckWarn, Found: some(found),
		Why: "each may act on the other's files and processes", Fix: "give each user a range of its own: usermod --del-subuids, --add-subuids",
	}}
}

func high(file string, lines []subLine) []record.Check {
	var found []string
	for _, l := range lines {
		if l.to > signed {
			found = append(found, fmt.Sprintf("%s (%s)", l.owner, l.where))
		}
	}
	if found == nil {
		return nil
	}
	return []record.Check{{
		Group: IDs, Name: "ids from 2147483648 on in " + file, State: record.CheckWarn, Found: some(found),
		Why: "devpts and other programs take them for negative numbers", Fix: "choose ranges below 2147483648",
	}}
}

// onUsers finds users of the host whose uids are in a range.
func onUsers(file string, lines []subLine, users map[string]uint64) []record.Check {
	var found []string
	for name, uid := range users {
		for _, l := range lines {
			if uid >= l.from && uid < l.to && l.owner != name {
				found = append(found, fmt.Sprintf("%s (uid %d) is in a range of %s (%s)", name, uid, l.owner, l.where))
			}
		}
	}
	if found == nil {
		return nil
	}
	slices.Sort(found)
	return []record.Check{{
		Group: IDs, Name: "users of the host in ranges of " + file, State: record.CheckWarn, Found: some(found),
		Why: "whoever has the range may act as that user", Fix: "move the range or the user",
	}}
}

// passwd reads the uids of the host's users by name.
func passwd(o Options) map[string]uint64 {
	text, _ := os.ReadFile(o.Passwd) // a host without it has no users to look for
	users := map[string]uint64{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(line, ":")
		if len(fields) < 4 {
			continue
		}
		if uid, err := strconv.ParseUint(fields[2], 10, 32); err == nil {
			users[fields[0]] = uid
		}
	}
	return users
}

// remap looks for the lines that userns-remap needs.
func remap(o Options, all [][]subLine, users map[string]uint64) (out []record.Check) {
	if o.Remap == "" {
		return nil
	}
	user, group, given := strings.Cut(o.Remap, ":")
	if !given {
		group = user
	}
	if o.Remap == made {
		user, group = "dockremap", "dockremap"
	}
	for i, file := range []string{o.SubUID, o.SubGID} {
		name := []string{user, group}[i]
		c := record.Check{Group: IDs, Name: "userns-remap in " + file, State: record.CheckOK, Found: name}
		if slices.ContainsFunc(all[i], func(l subLine) bool { return l.owner == name || named(l.owner, name, users) }) {
			out = append(out, c)
			continue
		}
		c.State, c.Found, c.Why = record.CheckFail, "no line of "+name, "the daemon does not start"
		c.Fix = fmt.Sprintf("add a line such as %s:165536:65536 to %s", name, file)
		if o.Remap == made {
			c.State, c.Why, c.Fix = record.CheckInfo, "the daemon makes the user and its lines when it starts", ""
		}
		out = append(out, c)
	}
	return out
}

// named reports whether a and b are a user's name and its uid.
func named(a, b string, users map[string]uint64) bool {
	uid, ok := users[a]
	if ok && strconv.FormatUint(uid, 10) == b {
		return true
	}
	uid, ok = users[b]
	return ok && strconv.FormatUint(uid, 10) == a
}

// free counts the ranges of the pool that no line of somebody else touches.
func free(o Options, all [][]subLine) record.Check {
	c := record.Check{Group: IDs, Name: "ranges of 65536 ids for containers", State: record.CheckOK}
	var own [2][]subLine
	var others []subLine
	for i, lines := range all {
		for _, l := range lines {
			if l.owner == poolUser {
				own[i] = append(own[i], l)
			} else {
				others = append(others, l)
			}
		}
	}
	first, last := uint64(o.First), uint64(o.Last)
	inPool := func(from, to uint64) bool { return from >= first && to <= last+1 }
	if own[0] != nil || own[1] != nil {
		inPool = func(from, to uint64) bool { return covered(own[0], from, to) && covered(own[1], from, to) }
		first, last = 0, signed-1
	}
	n := 0
	for from := (first + rangeIDs - 1) / rangeIDs * rangeIDs; from+rangeIDs <= last+1; from += rangeIDs {
		if inPool(from, from+rangeIDs) && !touched(others, from, from+rangeIDs) {
			n++
		}
	}
	c.Found = fmt.Sprintf("%d not claimed by %s and %s", n, o.SubUID, o.SubGID)
	const fix = "remove lines that nobody needs, or give lines to the user fief: usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST fief"
	switch {
	case n == 0:
		c.State, c.Why, c.Fix = record.CheckFail, "no container can have a range of its own", fix
	case n < few:
		c.State, c.Why, c.Fix = record.CheckWarn, "there can be no more containers than that", fix
	}
	return c
}

func covered(lines []subLine, from, to uint64) bool {
	return slices.ContainsFunc(lines, func(l subLine) bool { return l.from <= from && to <= l.to })
}

func touched(lines []subLine, from, to uint64) bool {
	return slices.ContainsFunc(lines, func(l subLine) bool { return l.from < to && from < l.to })
}
