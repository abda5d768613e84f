package idmap

import (
	"testing"

	"fief/internal/words/fault"
)

func TestParseMount(t *testing.T) {
	uid, gid, err := ParseMount("uids=0-1-10#@10-11-10;gids=5-100-1")
	if err != nil || len(uid) != 2 || uid[1] != (MountSpan{10, 11, 10, true}) || len(gid) != 1 || gid[0] != (MountSpan{5, 100, 1, false}) {
		t.Errorf("%v %v %v", uid, gid, err)
	}
	for _, bad := range []string{"", "uids=", "uids=1-2", "uids=1-2-0", "uids=a-b-c", "uids=0-0-1;uids=1-1-1", "odd=1-1-1", "uids=4294967295-0-1", "uids=0-1-4294967295", "uids=-1-1-1"} {
		if _, _, err := ParseMount(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestMountMap(t *testing.T) {
	own, err := New(Span{0, 100000, 1000}, Span{1000, 5, 1})
	if err != nil {
		t.Fatal(err)
	}
	got, err := MountMap([]MountSpan{{50, 999, 2, true}, {7, 42, 1, false}}, own)
	if want := "7:42:1 50:100999:1 51:5:1"; err != nil || text(got) != want {
		t.Errorf("%s, want %s, %v", text(got), want, err)
	}
	if _, err := MountMap([]MountSpan{{0, 1000, 2, true}}, own); !fault.Is(err, fault.Invalid) {
		t.Errorf("an id that the container has not: %v", err)
	}
	if got, err := MountMap(nil, own); err != nil || !got.Equal(own) {
		t.Errorf("%v, %v", got, err)
	}
}

// The owner appears as the user, and what the container has besides as it is,
// also when owner or user are ids of the container's.
func TestMatching(t *testing.T) {
	own, err := New(Span{0, 100000, 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		owner, host Host
		want        string
	}{
		{1234, 100999, "1234:100999:1 100000:100000:999"},
		{1234, 100000, "1234:100000:1 100001:100001:999"},
		{100005, 100007, "100000:100000:5 100005:100007:1 100006:100006:1 100008:100008:992"},
	} {
		got, err := Matching(c.owner, c.host, own)
		if err != nil || text(got) != c.want {
			t.Errorf("%d as %d: %s, want %s, %v", c.owner, c.host, text(got), c.want, err)
		}
	}
	if got, err := Matching(7, 999, Map{}); err != nil || text(got) != "0:0:7 7:999:1 8:8:991 1000:1000:4294966295" {
		t.Errorf("%s, %v", text(got), err)
	}
}

func text(m Map) (out string) {
	for i, s := range m.Spans() {
		if i > 0 {
			out += " "
		}
		out += s.String()
	}
	return out
}

func FuzzParseMount(f *testing.F) {
	for _, s := range []string{"uids=0-1-10#@10-11-10;gids=5-100-1", "uids=", "@", "gids=@0-0-1"} {
		f.Add(s)
	}
	own, err := New(Span{0, 100000, 65536})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		uid, gid, err := ParseMount(s)
		if err != nil {
			return
		}
		for _, spans := range [][]MountSpan{uid, gid} {
			m, err := MountMap(spans, own)
			if err == nil && spans != nil && m.IsZero() {
				t.Errorf("%q maps nothing", s)
			}
		}
	})
}
