package snapshot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
)

// spread lets ext4 put each pair of the stock into a block group of its own,
// when the file system has no journal. Without one, the search for a free inode
// passes over each that was freed in the last minutes (fs/ext4/ialloc.c,
// find_inode_bit and recently_deleted), and every start frees about ten in the
// group of its upper: 0.7 ms for a mount after a thousand starts, 0.3 ms when
// spread. With a journal it would only cost. A failure changes nothing but speed.
func spread(uppers *os.File) {
	if !withoutJournal(uppers) {
		return
	}
	f, err := at.Beneath(uppers, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&topDir != 0 {
		return
	}
	unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|topDir)
}

// topDir is FS_TOPDIR_FL (linux/fs.h, chattr(1) +T): subdirectories are placed
// as if they had nothing to do with each other.
const topDir = 0x00020000

// withoutJournal reports whether dir is on an ext4 that says it has no journal
// (/sys/fs/ext4/DEVICE/journal_task).
func withoutJournal(dir *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &st) != nil {
		return false
	}
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return false
	}
	task, err := os.ReadFile(filepath.Join("/sys/fs/ext4", filepath.Base(device), "journal_task"))
	return err == nil && strings.HasPrefix(string(task), "<none>")
}
