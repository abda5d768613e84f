package volume

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/mnt"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// View makes of root, a detached mount of an image's files, which it takes over,
// the read-only mount of it that m asks for.
//
// A part of it is Unsupported before Linux 6.15, where a detached mount cannot be
// cloned (open_tree(2)).
func View(root *os.File, m record.Mount) (*os.File, error) {
	m.ReadOnly = true
	if m.Subpath == "" {
		return shown(root, m, As{})
	}
	defer root.Close()
	sub, err := at.Descend(root, m.Subpath, unix.O_PATH)
	if err != nil {
		return nil, unreachable(m, err)
	}
	defer sub.Close()
	f, err := mnt.Clone(sub, false)
	if errors.Is(err, unix.EINVAL) {
		return nil, fault.Wrap(fault.Unsupported, "mount a part of image", m.Source, err, "mount all of it: a part needs Linux 6.15")
	}
	if err != nil {
		return nil, err
	}
	return shown(f, m, As{})
}
