// Package quota limits the space that a tree of files takes on ext4 and xfs: project
// quotas, asked for with quotactl_fd (Linux 5.14) so that no device has to be found.
package quota

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// Commands of quotactl(2) for projects, which are xfs's but for all file systems, and
// what they say; linux/dqblk_xfs.h.
const (
	project = 2

	cmdGet   = 0x5803
	cmdSet   = 0x5804
	cmdState = 0x5808

	projectDquot  = 1 << 1
	fieldSoft     = 1 << 2
	fieldHard     = 1 << 3
	enforced      = 1 << 5
	block         = 512
	stateVersion1 = 1
	dquotVersion1 = 1
)

// dquot is struct fs_disk_quota.
type dquot struct {
	version        int8
	flags          int8
	fields         uint16
	id             uint32
	hard, soft     uint64 // in blocks
	inoHard        uint64
	inoSoft        uint64
	blocks, inodes uint64 // in use
	_              [48]byte
}

// state is struct fs_quota_statv.
type state struct {
	version int8
	_       uint8
	flags   uint16
	_       [156]byte
}

// Usage is what the files of a project take. The zero value: nobody has the id.
type Usage struct {
	Bytes uint64
	Files uint64
	Limit uint64 // bytes; 0: none
}

// Supported refuses the file system of dir (Unsupported) when it has no project quotas,
// or counts without holding anyone to a limit.
func Supported(dir *os.File) error {
	s := state{version: stateVersion1}
	err := call(dir, cmdState, 0, unsafe.Pointer(&s))
	if err == nil && s.flags&enforced != 0 {
		return nil
	}
	var fs unix.Statfs_t
	if unknown := unix.Fstatfs(int(dir.Fd()), &fs); unknown != nil {
		return sysx.Fault("ask for project quotas of", dir.Name(), unknown)
	}
	hint := "they need xfs or ext4"
	switch fs.Type {
	case unix.XFS_SUPER_MAGIC:
		hint = "mount the xfs with prjquota"
	case unix.EXT4_SUPER_MAGIC:
		hint = "give the ext4 them with tune2fs -O project,quota, and mount it with prjquota"
	}
	if err == nil {
		err = errors.New("they are not enforced")
	}
	return fault.Wrap(fault.Unsupported, "use project quotas on", dir.Name(), err, hint)
}

// Get returns what the project id takes on the file system of dir.
func Get(dir *os.File, id uint32) (Usage, error) {
	var d dquot
	err := call(dir, cmdGet, id, unsafe.Pointer(&d))
	if errors.Is(err, unix.ENOENT) {
		return Usage{}, nil
	}
	return Usage{Bytes: d.blocks * block, Files: d.inodes, Limit: d.hard * block}, sysx.Fault("ask for a project quota of", dir.Name(), err)
}

// Limit says how many bytes the files of project id may take on the file system of dir,
// rounded up to 512; 0: as many as there are.
func Limit(dir *os.File, id uint32, bytes uint64) error {
	n := (bytes + block - 1) / block
	d := dquot{version: dquotVersion1, flags: projectDquot, fields: fieldSoft | fieldHard, id: id, hard: n, soft: n}
	return sysx.Fault("set a project quota of", dir.Name(), call(dir, cmdSet, id, unsafe.Pointer(&d)))
}

func call(dir *os.File, cmd, id uint32, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, dir.Fd(), uintptr(cmd<<8|project), uintptr(id), uintptr(arg), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// fsxattr is struct fsxattr; linux/fs.h.
type fsxattr struct {
	flags, extent, extents, project, cowExtent uint32
	_                                          [8]byte
}

const (
	getAttr = 0x801c581f // FS_IOC_FSGETXATTR
	setAttr = 0x401c5820 // FS_IOC_FSSETXATTR
	inherit = 0x200      // FS_XFLAG_PROJINHERIT
)

// Project is the id that what is made in a directory will have; 0: none.
func Project(dir *os.File) (uint32, error) {
	var x fsxattr
	err := attributes(dir, getAttr, &x)
	if err != nil || x.flags&inherit == 0 {
		return 0, sysx.Fault("ask for the project of", dir.Name(), err)
	}
	return x.project, nil
}

// SetProject gives an empty directory, and all that will be made in it, to a project.
func SetProject(dir *os.File, id uint32) error {
	var x fsxattr
	err := attributes(dir, getAttr, &x)
	if err == nil {
		x.flags |= inherit
		x.project = id
		err = attributes(dir, setAttr, &x)
	}
	return sysx.Fault("set the project of", dir.Name(), err)
}

// attributes opens the directory for reading: an O_PATH descriptor takes no ioctl(2).
func attributes(dir *os.File, request uintptr, x *fsxattr) error {
	f, err := at.Beneath(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(x))); errno != 0 {
		return errno
	}
	return nil
}
