package at

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A list that cannot be read is no empty one: whoever copies attributes by it
// would lose them all without a word.
func TestXattrNames(t *testing.T) {
	long := slices.Repeat([]byte("user.a\x00"), 1000)
	for name, c := range map[string]struct {
		list func([]byte) (int, error)
		want int
		err  error
	}{
		"none":        {func([]byte) (int, error) { return 0, nil }, 0, nil},
		"unsupported": {func([]byte) (int, error) { return 0, unix.EOPNOTSUPP }, 0, nil},
		"failed":      {func([]byte) (int, error) { return 0, unix.EIO }, 0, unix.EIO},
		"too long":    {func([]byte) (int, error) { return 0, unix.ERANGE }, 0, unix.ERANGE},
		"grown": {func(b []byte) (int, error) {
			if len(b) < len(long) {
				return 0, unix.ERANGE
			}
			return copy(b, long), nil
		}, 1000, nil},
	} {
		names, err := XattrNames(c.list)
		if len(names) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %d names, %v", name, len(names), err)
		}
	}
}
