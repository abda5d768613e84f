package fd

import (
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
)

// Memory makes a file that is nowhere, close-on-exec, with some content and its
// offset at the beginning (memfd_create(2)). The caller owns it.
func Memory(name string, content []byte) (*os.File, error) {
	n, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, sysx.Fault("make memory file", name, err)
	}
	f := Wrap(n, name)
	if _, err := f.WriteAt(content, 0); err != nil {
		f.Close()
		return nil, sysx.Fault("write memory file", name, err)
	}
	return f, nil
}

// Seal has nobody ever change a file of Memory again (fcntl(2), File Sealing).
func Seal(f *os.File) error {
	const all = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, all); err != nil {
		return sysx.Fault("seal", f.Name(), err)
	}
	return nil
}
