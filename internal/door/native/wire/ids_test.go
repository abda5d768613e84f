package wire

import (
	"reflect"
	"testing"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

func TestRanges(t *testing.T) {
	want := []record.IDRange{
		{First: 0, Last: 4294967294, UID: true, Kind: record.IDFree},
		{First: 5, Last: 5, GID: true, Kind: record.IDLease, Holder: "web", Container: "abc", Source: "state.db", Since: time.Unix(7, 8), Why: "no", Overlaps: []string{"a", ""}},
	}
	var body []byte
	for _, r := range want {
		body = AppendRange(body, r)
	}
	got, err := Ranges(nil, body)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range len(body) {
		if got, err := Ranges(nil, body[:n]); len(got) > 2 || err != nil && !fault.Is(err, fault.Corrupt) {
			t.Errorf("cut at %d: %v, %v", n, got, err)
		}
	}
}

func TestUpdateKeepsTheAsk(t *testing.T) {
	m, err := idmap.New(idmap.Span{In: 0, Out: 200000, N: 65536})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []ask.Userns{ask.UsernsDefault{}, ask.UsernsAuto{Size: 7}, ask.UsernsHost{}, ask.UsernsMap{Pair: idmap.Pair{UID: m, GID: m}}} {
		if got, err := PackUpdate("web", u, nil).Unpack(); err != nil || !reflect.DeepEqual(got, u) {
			t.Errorf("%+v came as %+v, %v", u, got, err)
		}
	}
	bad := UpdateCall{Userns: Userns{Kind: "map", UID: []idmap.Span{{In: 0, Out: 1, N: 2}, {In: 0, Out: 9, N: 2}}}}
	if _, err := bad.Unpack(); !fault.Is(err, fault.Invalid) {
		t.Errorf("a map that overlaps: %v", err)
	}
}

func FuzzRanges(f *testing.F) {
	f.Add(AppendRange(nil, record.IDRange{First: 1, Last: 2, UID: true, Kind: record.IDUser, Holder: "x", Since: time.Unix(1, 1), Overlaps: []string{"y"}}))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, body []byte) {
		all, err := Ranges(nil, body)
		if err != nil {
			return
		}
		var again []byte
		for _, r := range all {
			again = AppendRange(again, r)
		}
		if back, err := Ranges(nil, again); err != nil || len(back) != len(all) {
			t.Errorf("%d ranges read as %d, %v", len(all), len(back), err)
		}
	})
}
