package spec

import (
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// ownDev are the directories of /dev that a container has of its own, and the
// nodes it gets in any case or from its terminal.
var ownDev = map[string]bool{
	"/dev/pts": true, "/dev/shm": true, "/dev/mqueue": true, "/dev/fd": true, "/dev/hugepages": true, "/dev/.lxc": true, "/dev/.lxd-mounts": true,
	"/dev/console": true, "/dev/ptmx": true,
	"/dev/null": true, "/dev/zero": true, "/dev/full": true, "/dev/random": true, "/dev/urandom": true, "/dev/tty": true,
}

// HostDevices are the device nodes below /dev of the host with their owners and
// modes, for a privileged container. Symbolic links are not followed, and nodes
// that vanish while they are looked at are left out.
func HostDevices() ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	err := filepath.WalkDir("/dev", func(path string, e fs.DirEntry, err error) error {
		switch {
		case ownDev[path] && e != nil && e.IsDir():
			return fs.SkipDir
		case ownDev[path], err != nil && path != "/dev":
			return nil
		case err != nil:
			return err
		}
		if d, ok := device(path, e); ok {
			out = append(out, d)
		}
		return nil
	})
	return out, fault.Wrap(fault.Internal, "list devices in", "/dev", err, "")
}

func device(path string, e fs.DirEntry) (specs.LinuxDevice, bool) {
	if e.Type()&fs.ModeDevice == 0 || strings.ContainsAny(path, "\x00\n") {
		return specs.LinuxDevice{}, false
	}
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return specs.LinuxDevice{}, false
	}
	d := specs.LinuxDevice{Path: path, Type: "b", Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR {
		d.Type = "c"
	}
	mode := fs.FileMode(st.Mode & 0o777)
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d, true
}
