package volume

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/mnt"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// Cover puts what m asks for where a container has it, below root: the root file
// system of a container that does not run, a detached mount. It goes away with
// root, which stays the caller's. The target is found as inside the container
// and has to exist (NotFound). A source is never made: Prepare's NotFound.
//
// Unsupported before Linux 6.15, where nothing can be mounted on a detached
// mount (move_mount(2)).
func Cover(root *os.File, m record.Mount, pair idmap.Pair) error {
	target, err := at.InRoot(root, m.Target, unix.O_PATH)
	if err != nil {
		return err
	}
	defer target.Close()
	f, err := Prepare(m, pair)
	if err != nil {
		return err
	}
	defer f.Close()
	err = mnt.Attach(f, target)
	if errors.Is(err, unix.EINVAL) {
		return fault.Wrap(fault.Unsupported, "show", m.Target, err, "start the container first")
	}
	return err
}

// IsDir reports whether the source of m is a directory. NotFound, in Docker's
// words, when there is none.
func IsDir(m record.Mount) (bool, error) {
	st, err := os.Stat(m.Source)
	if err != nil {
		return false, explain(m, err)
	}
	return st.IsDir(), nil
}
