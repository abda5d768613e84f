package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// crowd is a host with n containers.
func crowd(n int) record.IDs {
	var out record.IDs
	at := time.Date(2024, 1, 2, 3, 4, 5, 678, time.UTC)
	for i := range n {
		first := idmap.Host(524288 + i*65536)
		out.Ranges = append(out.Ranges, record.IDRange{
			First: first, Last: first + 65535, UID: true, GID: true, Kind: record.IDLease, Holder: fmt.Sprintf("ordinary_name%d", i),
			Container: strings.Repeat("0123456789abcdef", 4), Source: "/var/lib/fief/state.db", Since: at,
		})
	}
	return out
}

func draw(t testing.TB, body []byte) int {
	var ids record.IDs
	if err := json.Unmarshal(body, &ids); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Write(&out, IDTable("", false), IDRows(ids.Ranges, true, false)); err != nil {
		t.Fatal(err)
	}
	return bytes.Count(out.Bytes(), []byte("\n"))
}

// BenchmarkIDs is what the client does for 10,000 containers, and the daemon's
// encoding of the answer.
func BenchmarkIDs(b *testing.B) {
	ids := crowd(10_000)
	for b.Loop() {
		body, err := json.Marshal(ids)
		if err != nil {
			b.Fatal(err)
		}
		if n := draw(b, body); n != 10_001 {
			b.Fatal(n)
		}
	}
}

func TestIDRows(t *testing.T) {
	r := func(first, last idmap.Host, kind record.IDKind, holder string) record.IDRange {
		return record.IDRange{First: first, Last: last, UID: true, GID: true, Kind: kind, Holder: holder}
	}
	shared := r(7, 7, record.IDUser, "odd")
	shared.Overlaps = []string{"web"}
	rows := IDRows([]record.IDRange{
		r(0, 0, record.IDUser, "root"), shared, r(99, 99, record.IDUser, "lp"), r(70000, 70000, record.IDUser, "ldap"),
		r(80000, 89999, record.IDFree, ""), r(90000, 99999, record.IDFree, ""), r(200000, 4294967294, record.IDFree, ""),
	}, true, false)
	var got []string
	for _, row := range rows {
		got = append(got, fmt.Sprint(row.First, row.Last, row.Count, " ", row.Holder, row.Conflict()))
	}
	want := []string{
		"0 99 2 host users and groups (2)", "7 7 1 odd! also web", "70000 70000 1 ldap", "80000 99999 20000 ", "200000 4294967294 4294767295 ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", got)
	}
	if rows := IDRows(nil, true, true); rows == nil || len(rows) != 0 {
		t.Errorf("%v", rows)
	}
}

// What other people name their files and processes cannot command a terminal.
func TestWhoPrintsNoControls(t *testing.T) {
	id := &record.WhoID{Host: 5, Container: strings.Repeat("a", 64), User: "ng\x1b[2Jinx", HostName: "x\u009b1m"}
	text, known := Who(record.Who{Path: "/a\nb\x1b]0;x\a", UID: id, GID: id, Origin: "container web"})
	if !known || strings.ContainsAny(text, "\x1b\a\u009b") || strings.Count(text, "\n") != 6 {
		t.Errorf("%v %q", known, text)
	}
	if !strings.HasSuffix(text, "The ids are those of container web, not of the machine's initial user namespace.\n") {
		t.Errorf("%q", text)
	}
	if text, known := Who(record.Who{UID: &record.WhoID{Host: 5}}); known || text != "nobody has uid 5\n" {
		t.Errorf("%v %q", known, text)
	}
}

// inspect says what was asked for and which ids came of it.
func TestInspectedIdentity(t *testing.T) {
	span := []idmap.Span{{In: 0, Out: 1048576, N: 65536}, {In: 70000, Out: 5, N: 1}}
	for want, id := range map[string]record.Identity{
		`"UsernsMode":"auto","IDMappings":{"UidMap":["0:1048576:65536","70000:5:1"],"GidMap":["0:1048576:65536","70000:5:1"]},`: {Mode: "auto", UID: span, GID: span},
		`"UsernsMode":"auto:size=9","IDMappings":{"UidMap":["0:1048576:65536","70000:5:1"],"GidMap":[]},`:                       {Mode: "auto", Asked: "auto:size=9", UID: span},
		`"UsernsMode":"host","ShmSize":0,`: {Mode: "host"},
		`"UsernsMode":"","ShmSize":0,`:     {Mode: "remap"},
	} {
		text, err := json.Marshal(Inspected(record.Container{Identity: id}))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s is not in %s, %v", want, text, err)
		}
	}
}
