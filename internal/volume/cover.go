package volume

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/mnt"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Cover puts f, a detached mount of what m asks for, where a container has it, below root: the root file
// system of a container that does not run, a detached mount. It goes away with
// root, which stays the caller's. The target is found as inside the container
// and has to exist (NotFound).
//
// Unsupported before Linux 6.15, where nothing can be mounted on a detached
// mount (move_mount(2)).
func Cover(root, f *os.File, m record.Mount) error {
	target, err := at.InRoot(root, m.Target, unix.O_PATH)
	if err != nil {
		return err
	}
	defer target.Close()
	err = mnt.Attach(f, target)
	if errors.Is(err, unix.EINVAL) {
		return fault.Wrap(fault.Unsupported, "show", m.Target, err, "start the container first")
	}
	return err
}

// IsDir reports whether what f is a mount of is a directory.
func IsDir(f *os.File) (bool, error) {
	st, err := f.Stat()
	if err != nil {
		return false, sysx.Fault("look at", f.Name(), err)
	}
	return st.IsDir(), nil
}
