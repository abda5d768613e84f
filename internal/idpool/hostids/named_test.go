package hostids

import (
	"testing"

	"fief/internal/words/fault"
)

func TestNamed(t *testing.T) {
	const annUID, annGID = "0:200000:1000,1000:1000:1,1001:201000:64535", "0:600000:65536"
	for _, c := range []struct{ subuid, subgid, uid, gid, err string }{
		{"ann", "ann", annUID, annGID, ""},
		{"ann", "", annUID, annGID, ""},
		{"", "ann", annUID, annGID, ""},
		{"1000", "", annUID, annGID, ""},
		{"ann", "bob", annUID, "0:500000:65536", ""}, // not exchanged
		{"bob", "ann", "0:300000:65536", annGID, ""},
		{"1001", "1000", "0:300000:65536", annGID, ""},
		{"ghost", "", "0:9000000:10", "0:9000000:10", ""}, // no such user
		{"4242", "", "0:8000000:10", "0:8000000:10", ""},
		{"eve", "", "", "", `no subgid ranges found for group "eve" in %g`},
		{"none", "ann", "", "", `no subuid ranges found for user "none" in %u`},
		{"ann", "none", "", "", `no subgid ranges found for group "none" in %g`},
		{"root", "ann", "", "", "cannot use line 8 of %u: it gives away host id 0, root"},
		{"bad", "ann", "", "", "cannot use line 9 of %u: its count is zero"},
		{"", "", "", "", "cannot use subordinate ids: no user is named"},
	} {
		f := newAccounts(t)
		write(t, f.SubUID, read(t, f.SubUID)+"ghost:9000000:10\n4242:8000000:10\nroot:0:1\nbad:1:0\n")
		write(t, f.SubGID, read(t, f.SubGID)+"ghost:9000000:10\n4242:8000000:10\n")
		pair, err := Named(c.subuid, c.subgid, f)
		if c.err != "" {
			text := replacePaths(c.err, f)
			if err == nil || err.Error() != text || !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
				t.Errorf("%q %q: %v (%s)\nwant %s", c.subuid, c.subgid, err, fault.HintOf(err), text)
			}
			continue
		}
		if err != nil || pair.UID.List() != c.uid || pair.GID.List() != c.gid {
			t.Errorf("%q %q: %s %s %v", c.subuid, c.subgid, pair.UID.List(), pair.GID.List(), err)
		}
	}
}
