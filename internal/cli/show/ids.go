package show

import (
	"fmt"
	"strings"
	"time"

	"fief/internal/words/idmap"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// IDRange is a row of ids: a claim on the host ids First to Last. JSON and
// templates have the numbers as such.
type IDRange struct {
	First, Last uint32
	Count       uint64 // how many ids; of the folded users of the host how many are taken
	UID, GID    bool
	Kind        string
	Holder      string
	Container   string
	Source      string
	Since       string
	Why         string
	Overlaps    []string
}

// Conflict marks a claim that others overlap.
func (r *IDRange) Conflict() string {
	if len(r.Overlaps) == 0 {
		return ""
	}
	return "! also " + strings.Join(r.Overlaps, ", ")
}

// lowest is the first id that is not of the users and groups that every host
// has: those below it are folded.
const lowest = 65536

// longHolder is the most characters of a holder in a cut table.
const longHolder = 48

// IDTable is the table of ids. Overlaps have a column when there are any.
func IDTable(format string, overlaps bool) Table {
	t := Table{Format: format, Headings: Headings{
		"First": "FIRST", "Last": "LAST", "Count": "COUNT", "UID": "UID", "GID": "GID", "Kind": "KIND", "Holder": "HOLDER",
		"Container": "CONTAINER ID", "Source": "SOURCE", "Since": "SINCE", "Why": "WHY", "Overlaps": "OVERLAPS", "Conflict": "OVERLAPS",
	}}
	t.Default = "{{.First}}\t{{.Last}}\t{{.Count}}\t{{.Kind}}\t{{.Holder}}\t{{.Since}}"
	if overlaps {
		t.Default += "\t{{.Conflict}}"
	}
	return t
}

// IDRows makes the rows of claims that are sorted by First: free ranges that
// follow each other are one row, and so are, without all, the users and groups
// that every host has.
func IDRows(ranges []record.IDRange, trunc, all bool) []IDRange {
	rows := make([]IDRange, 0, len(ranges))
	users, names := -1, 0 // the row of the folded users, and how many they are
	for _, r := range ranges {
		last := len(rows) - 1
		switch {
		case r.Kind == record.IDFree && last >= 0 && rows[last].Kind == string(record.IDFree) && uint64(rows[last].Last)+1 == uint64(r.First):
			rows[last].Last, rows[last].Count = uint32(r.Last), rows[last].Count+count(r)
		case all || r.Kind != record.IDUser || r.Last >= lowest || len(r.Overlaps) > 0:
			rows = append(rows, idRow(r, trunc))
		case users < 0:
			users = len(rows)
			rows = append(rows, IDRange{First: uint32(r.First), Last: uint32(r.Last), Kind: string(r.Kind), UID: true, GID: true})
			names++
		default:
			rows[users].Last = max(rows[users].Last, uint32(r.Last))
			names++
		}
	}
	if users >= 0 {
		rows[users].Count = uint64(names)
		rows[users].Holder = fmt.Sprintf("host users and groups (%d)", names)
	}
	return rows
}

func count(r record.IDRange) uint64 { return uint64(r.Last) - uint64(r.First) + 1 }

func idRow(r record.IDRange, trunc bool) IDRange {
	row := IDRange{
		First: uint32(r.First), Last: uint32(r.Last), Count: count(r), UID: r.UID, GID: r.GID, Kind: idKind(r), Holder: r.Holder,
		Container: r.Container, Source: r.Source, Since: since(r.Since), Why: r.Why, Overlaps: r.Overlaps,
	}
	if row.Holder == "" && r.Container != "" {
		row.Holder = ref.Short(r.Container)
	}
	if r.Kind == record.IDQuarantine && trunc { // of a container that is gone, and its name with it
		row.Holder = ref.Short(row.Holder)
	}
	if r.Why != "" && trunc {
		row.Holder = strings.TrimSpace(row.Holder + " (" + r.Why + ")")
	}
	if trunc {
		row.Holder = Ellipsis(row.Holder, longHolder)
	}
	return row
}

// idKind is the kind in the table: it says when only uids or only gids are
// claimed.
func idKind(r record.IDRange) string {
	switch {
	case r.Kind == record.IDUser && r.GID && !r.UID:
		return "group"
	case r.Kind == record.IDUser || r.UID == r.GID:
		return string(r.Kind)
	case r.UID:
		return string(r.Kind) + " (uid)"
	}
	return string(r.Kind) + " (gid)"
}

// since is a time of the table in the local zone, empty when it is not known.
func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}

// IDSummary is the line below the table: how many ranges are what.
func IDSummary(i record.IDs) string {
	const size = 65536
	used, ready := 0, 0
	for _, r := range i.Ranges {
		switch r.Kind {
		case record.IDLease:
			used++
		case record.IDReady:
			ready += max(1, int(count(r)/size))
		}
	}
	return fmt.Sprintf("Ranges of %d: %d used, %d ready, %d quarantined, %d free", size, used, ready, i.Pool.Quarantined, i.Pool.Free)
}

// IDOverlaps says which claims overlap, one sentence for each pair; empty when
// none do.
func IDOverlaps(ranges []record.IDRange) []string {
	var out []string
	said := map[[2]string]bool{}
	for _, r := range ranges {
		for _, other := range r.Overlaps {
			if said[[2]string{other, r.Holder}] || said[[2]string{r.Holder, other}] {
				continue
			}
			said[[2]string{r.Holder, other}] = true
			out = append(out, fmt.Sprintf("%s and %s both claim ids of %d–%d", whoever(r), other, r.First, r.Last))
		}
	}
	return out
}

func whoever(r record.IDRange) string {
	name := r.Holder
	if name == "" {
		name = string(r.Kind)
	}
	if r.Source != "" {
		name += " (" + r.Source + ")"
	}
	return name
}

// Mappings are the lines of a map as --uidmap takes them, which is also the
// form of podman's inspect.
func Mappings(spans []idmap.Span) []string {
	out := []string{}
	for _, s := range spans {
		out = append(out, s.String())
	}
	return out
}
