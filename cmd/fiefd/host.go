package main

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/words/record"
)

// describe collects what info says about the machine.
func describe(s settings, id string) record.Info {
	i := record.Info{
		ID: id, Version: version, OS: osName(), OSType: "linux", Arch: runtime.GOARCH, NCPU: runtime.NumCPU(),
		InsecureRegistries: s.Insecure, Debug: s.Debug,
	}
	i.Name, _ = os.Hostname()
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		i.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var m unix.Sysinfo_t
	if unix.Sysinfo(&m) == nil {
		i.MemTotal = int64(m.Totalram) * int64(m.Unit)
	}
	var fs unix.Statfs_t
	if unix.Statfs(s.DataRoot, &fs) == nil {
		i.StorageFS = fsName(fs.Type)
	}
	return i
}

// osName is PRETTY_NAME of os-release(5).
func osName() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if v, ok := strings.CutPrefix(in.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "Linux"
}

// fsName names the file systems that fief's state usually lies on; statfs(2).
func fsName(magic int64) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "extfs"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	}
	return "0x" + strconv.FormatInt(magic, 16)
}
