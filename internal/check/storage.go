package check

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/mnt"
	"fief/internal/kernel/probe"
	"fief/internal/words/record"
)

// Below these much free space on the data root there is a warning, or a
// failure.
const (
	littleSpace, noSpace   = 2 << 30, 100 << 20
	littleInodes, noInodes = 50_000, 1_000
)

// storage looks at the file systems of the data root and of the exec root. Where
// the directories do not exist yet, it looks at those they will be made in.
func storage(o Options, ladder func(string) ([]probe.Answer, error)) []record.Check {
	out := append(space(o.DataRoot), execRoot(o.ExecRoot))
	c := record.Check{Group: Storage, Name: "ways to show files under a container's ids"}
	if os.Geteuid() != 0 {
		return append(out, skipped(c, "they can only be tried as root"))
	}
	dir, err := os.MkdirTemp(existing(o.DataRoot), ".fief-check-")
	if err != nil {
		c.State, c.Found, c.Fix = record.CheckFail, err.Error(), "mount the data root writable, or choose another --data-root"
		return append(out, c)
	}
	defer os.RemoveAll(dir)
	out = append(out, tryAll(Storage, fileTrials(dir))...)
	if ladder != nil {
		answers, err := ladder(dir)
		out = append(out, rungs(answers, err)...)
	}
	return out
}

func fileTrials(dir string) []trial {
	const copied = "files are copied once for each map"
	const move = "move the data root to ext4, xfs or btrfs"
	attribute := func(name string) func() error { return func() error { return xattr(dir, name) } }
	return []trial{
		{name: "idmapped mounts of the data root", worst: record.CheckWarn, do: func() error { return idmapped(dir) }, why: copied, fix: move},
		{name: "idmapped tmpfs", worst: record.CheckInfo, do: idmappedTmpfs, why: "tmpfs volumes and data roots on tmpfs are copied (Linux 6.3)"},
		{name: "overlay layers for data only", worst: record.CheckInfo, do: func() error { return dataOnly(dir) }, why: "ways that share file contents between maps are not available (Linux 6.5)"},
		{name: "trusted.* attributes", worst: record.CheckFail, do: attribute("trusted.fief"), why: "overlayfs keeps its marks in them", fix: move},
		{name: "user.* attributes", worst: record.CheckWarn, do: attribute("user.fief"), why: "images whose files have such attributes lose them (tmpfs: Linux 6.6)", fix: move},
		{name: "files without a name (O_TMPFILE)", worst: record.CheckInfo, do: func() error { return tmpfile(dir) }},
	}
}

// xattr sets an attribute of a file that is gone with it.
func xattr(dir, name string) error {
	f, err := os.CreateTemp(dir, "xattr-")
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(unix.Fsetxattr(int(f.Fd()), name, []byte("x"), 0), os.Remove(f.Name()))
}

func tmpfile(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func idmapped(dir string) error {
	return mapped(func(ns *os.File) error {
		f, err := at.Dir(dir)
		if err != nil {
			return err
		}
		defer f.Close()
		return probe.Idmap(f, ns).Err
	})
}

func idmappedTmpfs() error {
	return mapped(func(ns *os.File) error {
		fs, err := mnt.NewFS("tmpfs").Mount(0)
		if err != nil {
			return err
		}
		defer fs.Close()
		return mnt.Idmap(fs, ns, false)
	})
}

// dataOnly mounts an overlay, detached, over a lower layer that no name shows.
func dataOnly(dir string) error {
	for _, sub := range []string{"meta", "data"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	lower := filepath.Join(dir, "meta") + "::" + filepath.Join(dir, "data")
	fs, err := mnt.NewFS("overlay").Set("metacopy", "on").Set("lowerdir", lower).Mount(0)
	if err == nil {
		fs.Close()
	}
	return err
}

// rungs are the answers of the ladder of ways, best first: the best that holds
// is taken, so that what fails above it is worth a warning and what fails below
// it nothing.
func rungs(answers []probe.Answer, err error) (out []record.Check) {
	held, none := false, !slices.ContainsFunc(answers, func(a probe.Answer) bool { return a.Verdict == probe.Yes })
	for _, a := range answers {
		c := record.Check{Group: Storage, Name: a.Feature, State: record.CheckOK}
		if a.Verdict != probe.Yes {
			c.State, c.Found = record.CheckInfo, a.Err.Error()
			if !held && !none {
				c.State, c.Why = record.CheckWarn, "a slower way is used (Linux "+a.Since+" has it)"
			}
		}
		held = held || a.Verdict == probe.Yes
		out = append(out, c)
	}
	c := record.Check{Group: Storage, Name: "ways to show files under a container's ids", State: record.CheckOK}
	if err != nil || none {
		c.State, c.Why, c.Fix = record.CheckFail, "no container can have a root file system", "move the data root to ext4, xfs or btrfs"
	}
	if none && slices.ContainsFunc(answers, func(a probe.Answer) bool { return errors.Is(a.Err, unix.EPERM) }) {
		c.Fix = privileged
	}
	if err != nil {
		c.Found = err.Error()
	}
	return append(out, c)
}

func space(root string) []record.Check {
	dir := existing(root)
	c := record.Check{Group: Storage, Name: "data root " + root, State: record.CheckOK}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		c.State, c.Found = record.CheckFail, err.Error()
		return []record.Check{c}
	}
	free := int64(fs.Bavail) * fs.Bsize
	c.Found = units.HumanSize(float64(free)) + " free"
	const more = "free some, or choose another --data-root"
	switch {
	case fs.Flags&unix.ST_RDONLY != 0:
		c.State, c.Found, c.Why, c.Fix = record.CheckFail, "mounted read-only", "nothing can be stored", "choose another --data-root"
	case fs.Blocks == 0: // a tmpfs without limit, and what stores no files at all
		c.Found = "free space not told"
	case free < noSpace:
		c.State, c.Why, c.Fix = record.CheckFail, "no image can be unpacked", more
	case free < littleSpace:
		c.State, c.Why, c.Fix = record.CheckWarn, "larger images cannot be unpacked", more
	}
	i := record.Check{Group: Storage, Name: "inodes of the data root", State: record.CheckOK, Found: fmt.Sprintf("%d free", fs.Ffree)}
	switch {
	case fs.Files == 0:
		i.State, i.Found = record.CheckInfo, "made when they are needed"
	case fs.Ffree < noInodes:
		i.State, i.Why, i.Fix = record.CheckFail, "no image can be unpacked", more
	case fs.Ffree < littleInodes:
		i.State, i.Why, i.Fix = record.CheckWarn, "images with many files cannot be unpacked", more
	}
	return []record.Check{c, i}
}

// execRoot holds sockets and live state, which must not outlive a boot.
func execRoot(root string) record.Check {
	c := record.Check{Group: Storage, Name: "exec root " + root, State: record.CheckOK, Found: "tmpfs"}
	var fs unix.Statfs_t
	switch err := unix.Statfs(existing(root), &fs); {
	case err != nil:
		c.State, c.Found = record.CheckFail, err.Error()
	case fs.Flags&unix.ST_RDONLY != 0:
		c.State, c.Found, c.Fix = record.CheckFail, "mounted read-only", "choose another --exec-root"
	case fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC:
		c.State, c.Found, c.Why = record.CheckInfo, "not a tmpfs", "live state is written to a disk, and outlives a boot"
		c.Fix = "choose an --exec-root below /run"
	}
	return c
}
