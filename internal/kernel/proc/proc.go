// Package proc reads what /proc says about processes: who is in a pid
// namespace, which ids a process has mapped, when it was started, and the
// table that ps makes of it.
package proc

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// maxFile bounds what is read of one file: the largest, a uid_map, is below a
// page (user_namespaces(7)).
const maxFile = 64 << 10

// IDMaps are the uid and gid map of a process, as its parent user namespace
// gave them. A process that is gone is a NotFound fault.
func IDMaps(pid int) (idmap.Pair, error) {
	uid, err := readMap(pid, "uid_map")
	if err != nil {
		return idmap.Pair{}, err
	}
	gid, err := readMap(pid, "gid_map")
	return idmap.Pair{UID: uid, GID: gid}, err
}

func readMap(pid int, name string) (idmap.Map, error) {
	text, err := read(pid, name)
	if err != nil {
		return idmap.Map{}, err
	}
	return idmap.ParseKernel(text)
}

// StartTime says when a process was started, in clock ticks since boot. With
// the pid it names a process for good: pids are used again, pairs are not
// (proc_pid_stat(5), field 22). A process that is gone is a NotFound fault.
func StartTime(pid int) (uint64, error) {
	text, err := read(pid, "stat")
	if err != nil {
		return 0, err
	}
	return parseStartTime(text)
}

// parseStartTime takes field 22. The second field is the command's name in
// parentheses and may hold anything, parentheses and newlines too: fields are
// counted from its end.
func parseStartTime(stat []byte) (uint64, error) {
	const afterName = 19 // field 22, counted from the third as 0
	at := bytes.LastIndexByte(stat, ')')
	if fields := bytes.Fields(stat[at+1:]); at >= 0 && len(fields) > afterName {
		if ticks, err := strconv.ParseUint(string(fields[afterName]), 10, 64); err == nil {
			return ticks, nil
		}
	}
	return 0, fault.New(fault.Corrupt, "read process state", "", "it has no start time", "")
}

// NamespacePids are the processes in the pid namespace of pid and in those
// made below it, numbered as this process sees them.
func NamespacePids(pid int) ([]int, error) {
	target, err := os.Readlink(path(pid, "ns/pid"))
	if err != nil {
		return nil, gone(pid, err)
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "read", "/proc/self/ns/pid", err, "")
	}
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var out []int
	for _, p := range all {
		// Processes may be gone by now: they are simply not in it.
		ns, err := os.Readlink(path(p, "ns/pid"))
		if err == nil && (ns == target || ns != own && below(p, target)) {
			out = append(out, p)
		}
	}
	return out, nil
}

// below reports whether a pid namespace above that of pid is target.
func below(pid int, target string) bool {
	fd, err := unix.Open(path(pid, "ns/pid"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { unix.Close(fd) }()
	for {
		// EPERM once the parent is above our own namespace (ioctl_ns(2)).
		parent, err := unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		if err != nil {
			return false
		}
		unix.Close(fd)
		fd = parent
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return false
		}
		if target == "pid:["+strconv.FormatUint(st.Ino, 10)+"]" {
			return true
		}
	}
}

// pids are all processes of this /proc.
func pids() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "open", "/proc", err, "")
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "read", "/proc", err, "")
	}
	var out []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			out = append(out, pid)
		}
	}
	return out, nil
}

func path(pid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}

func read(pid int, name string) ([]byte, error) {
	f, err := os.Open(path(pid, name))
	if err != nil {
		return nil, gone(pid, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, gone(pid, err)
	}
	return text, nil
}

// gone gives errors of reading a process their class: a process that has ended
// shows as ENOENT at open and as ESRCH at read.
func gone(pid int, err error) error {
	class := fault.Internal
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		class = fault.NotFound
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		class = fault.Denied
	}
	return fault.Wrap(class, "read process", strconv.Itoa(pid), err, "")
}
