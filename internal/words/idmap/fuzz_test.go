package idmap

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func FuzzParseList(f *testing.F) {
	for _, seed := range []string{"0:100000:65536", "0:1:1,1:100000:65535", "0:0:4294967295", "1:1", "", ",", "0:1:2:3", "+0:@1:1", "4294967295:0:1", "0:1000:10,9:5000:10"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		m, err := ParseList([]string{value})
		if err != nil {
			return
		}
		checkInvariants(t, m)
		back, err := ParseList(strings.Split(m.List(), ","))
		if err != nil || !back.Equal(m) {
			t.Errorf("%q: %s reads back as %s, %v", value, m.List(), back.List(), err)
		}
	})
}

func FuzzParseKernel(f *testing.F) {
	f.Add([]byte("         0     524288      65536\n"))
	f.Add([]byte("0 0 4294967295\n"))
	f.Add([]byte("0 4294967295 1\n"))
	f.Add([]byte("0 1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseKernel(text)
		if err != nil {
			return
		}
		back, err := ParseKernel([]byte(m.String()))
		if err != nil || !back.Equal(m) {
			t.Errorf("%q: %q reads back as %q, %v", text, m.String(), back.String(), err)
		}
		lines, err := ParseExtents(text)
		if err != nil {
			t.Fatalf("%q: a map, but no extents: %v", text, err)
		}
		again, err := ParseExtents([]byte(lines.String()))
		if err != nil || !slices.Equal(again, lines) {
			t.Errorf("%q: %q reads back as %q, %v", text, lines, again, err)
		}
		if split, err := m.Invert().SplitAt(lines); m.checkLimits() == nil && err != nil && len(lines) < MaxExtents && len(lines.String()) <= MaxText {
			t.Errorf("%q: %q cannot be split at its own extents: %v", text, split, err)
		}
	})
}

// FuzzJSON holds the hand-written JSON against encoding/json: whatever is
// accepted must mean what encoding/json reads into a []Span, and whatever
// encoding/json writes for the spans must be accepted.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`[{"In":0,"Out":524288,"N":65536}]`, "[]", "null", " [ { \"N\" : 1 , \"Out\":5,\"In\":7 } ] ",
		`[{"In":0,"Out":1,"N":1},{"In":5,"Out":9,"N":2}]`, `[{}]`, `[{"In":00,"N":1}]`, `[{"In":0,"Out":1,"N":1}`, `{"In":0}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var m Map
		if json.Unmarshal(text, &m) != nil {
			return
		}
		checkInvariants(t, m)
		var spans []Span
		if err := json.Unmarshal(text, &spans); err != nil {
			t.Fatalf("%q: accepted, but %v", text, err)
		}
		if plain, err := New(spans...); err != nil || !plain.Equal(m) {
			t.Fatalf("%q: read as %s, encoding/json reads %v, %v", text, m.List(), spans, err)
		}
		ours, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var back Map
		if err := json.Unmarshal(ours, &back); err != nil || !back.Equal(m) {
			t.Errorf("%s reads back as %s, %v", ours, back.List(), err)
		}
		if std, _ := json.Marshal(m.Spans()); !m.IsZero() && string(std) != string(ours) {
			t.Errorf("written as %s, encoding/json writes %s", ours, std)
		}
	})
}

// checkInvariants fails when m could not be what New returns.
func checkInvariants(t *testing.T, m Map) {
	t.Helper()
	if len(m.spans) > MaxExtents || len(m.String()) > MaxText {
		t.Errorf("%d extents, %d bytes", len(m.spans), len(m.String()))
	}
	again, err := New(m.Spans()...)
	if err != nil || !again.Equal(m) {
		t.Errorf("%s is not stable: %v", m.List(), err)
	}
	if !m.Invert().Invert().Equal(m) {
		t.Errorf("%s inverted twice is %s", m.List(), m.Invert().Invert().List())
	}
}
