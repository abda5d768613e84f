package native

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/words/ask"
)

// TestCallerOf: nobody but root speaks for others, and root never for himself.
func TestCallerOf(t *testing.T) {
	said := &ask.Caller{UID: 1000, GID: 100}
	root, alice := &unix.Ucred{Uid: 0, Gid: 0}, &unix.Ucred{Uid: 1234, Gid: 5678}
	for name, tc := range map[string]struct {
		peer       *unix.Ucred
		said, want *ask.Caller
	}{
		"alice":                {alice, nil, &ask.Caller{UID: 1234, GID: 5678}},
		"alice for another":    {alice, said, &ask.Caller{UID: 1234, GID: 5678}},
		"alice as root":        {alice, &ask.Caller{}, &ask.Caller{UID: 1234, GID: 5678}},
		"root":                 {root, nil, nil},
		"root by sudo":         {root, said, said},
		"root by sudo of root": {root, &ask.Caller{GID: 100}, nil},
		"no uid":               {root, &ask.Caller{UID: 1<<32 - 1, GID: 1}, nil},
		"no gid":               {root, &ask.Caller{UID: 1, GID: 1<<32 - 1}, nil},
	} {
		if got := callerOf(tc.peer, tc.said); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
