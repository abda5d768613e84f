package proc

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// Bounds of what is taken from a container's files of accounts.
const (
	maxAccounts = 1 << 20 // bytes
	maxName     = 64      // of a name
)

// view is what the rows of one table share.
type view struct {
	depth   int // the container's pid namespace in the lists of NSpid
	pids    []int
	now     time.Duration // since boot
	userns  string        // this process's own
	hostDir *os.File
	names   map[accounts]map[string]string // by id
	maps    map[string]idmap.Pair          // by user namespace
}

// accounts is a file of accounts: below which root directory, in which mount
// namespace.
type accounts struct {
	mountns  string
	dev, ino uint64
	file     string
}

func newView(first int, pids []int) (*view, error) {
	p, err := readProcess(first)
	if err != nil {
		return nil, err
	}
	v := &view{
		depth: len(strings.Fields(p.status["NSpid"])) - 1, pids: pids,
		names: map[accounts]map[string]string{}, maps: map[string]idmap.Pair{},
	}
	if v.depth < 0 {
		return nil, fault.New(fault.Corrupt, "read process", strconv.Itoa(first), "it has no NSpid", "")
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return nil, fault.Wrap(fault.Internal, "read", "CLOCK_BOOTTIME", err, "")
	}
	v.now = time.Duration(now.Nano())
	if v.userns, err = os.Readlink("/proc/self/ns/user"); err != nil {
		return nil, fault.Wrap(fault.Internal, "read", "/proc/self/ns/user", err, "")
	}
	v.hostDir, err = at.Dir("/")
	return v, err
}

func (v *view) close() { v.hostDir.Close() }

// age is how long ago the process was started.
func (v *view) age(p *process) time.Duration {
	return v.now - time.Duration(p.number(statStart))*time.Second/hz
}

// percent is the part of its life for which the process used a processor.
func (v *view) percent(p *process) string {
	age := v.age(p)
	if age <= 0 {
		return "0.0"
	}
	return strconv.FormatFloat(100*float64(p.cpu())/float64(age), 'f', 1, 64)
}

// parent is the number of the parent in the container, 0 for one outside, as
// getppid(2) has it.
func (v *view) parent(p *process) string {
	pid, err := strconv.Atoi(p.status["PPid"])
	if err != nil || !slices.Contains(v.pids, pid) {
		return "0"
	}
	parent, err := readProcess(pid)
	if err != nil {
		return "0"
	}
	if in := parent.inside("NSpid", v.depth); in != "" {
		return in
	}
	return "0"
}

// user is the name that the process's own /etc/passwd has for its uid, else
// the uid as the process knows it.
func (v *view) user(p *process, which int) string {
	return v.own(p, "etc/passwd", p.id("Uid", which), func(m idmap.Pair) idmap.Map { return m.UID })
}

func (v *view) group(p *process, id string) string {
	return v.own(p, "etc/group", id, func(m idmap.Pair) idmap.Map { return m.GID })
}

func (v *view) own(p *process, file, id string, of func(idmap.Pair) idmap.Map) string {
	id, ok := v.toInside(p, id, of)
	if !ok {
		return "?"
	}
	if name, ok := v.namesOf(p, file)[id]; ok {
		return name
	}
	return id
}

// toInside translates an id through the process's own map. In the namespace of
// this process the ids are already what it knows: its map tells about its
// parent's.
func (v *view) toInside(p *process, id string, of func(idmap.Pair) idmap.Map) (string, bool) {
	ns, err := os.Readlink(path(p.pid, "ns/user"))
	if err != nil || ns == v.userns {
		return id, err == nil
	}
	pair, ok := v.maps[ns]
	if !ok {
		if pair, err = IDMaps(p.pid); err != nil {
			return "", false
		}
		v.maps[ns] = pair
	}
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return "", false
	}
	in, ok := of(pair).ToInside(idmap.Host(n))
	return strconv.FormatUint(uint64(in), 10), ok
}

// host is the host's name for an id, else the id.
func (v *view) host(file, id string) string {
	key := accounts{file: file}
	if v.names[key] == nil {
		v.names[key] = readNames(v.hostDir, file)
	}
	if name, ok := v.names[key][id]; ok {
		return name
	}
	return id
}

// namesOf reads a file of accounts as the process would. Processes with the
// same root share the answer.
func (v *view) namesOf(p *process, file string) map[string]string {
	root, err := os.OpenFile(path(p.pid, "root"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	defer root.Close()
	var st unix.Stat_t
	mountns, err := os.Readlink(path(p.pid, "ns/mnt"))
	if err != nil || unix.Fstat(int(root.Fd()), &st) != nil {
		return nil
	}
	key := accounts{mountns, st.Dev, st.Ino, file}
	if v.names[key] == nil {
		v.names[key] = readNames(root, file)
	}
	return v.names[key]
}

// readNames returns the names by id in a file of accounts below root, none when
// it cannot be read: the table then has numbers.
//
// The file is a container's, so it may be anything. Links stay below root, it is
// first opened as a path, and only a regular file is then opened for reading: a
// device or a pipe could do or wait for anything. A file system of a program in
// the container (FUSE) refuses us instead of making us wait, as it answers only
// in its own user namespace (73f03c2b4b52, "fuse: Restrict allow_other to the
// superblock's namespace or a descendant", v4.18).
func readNames(root *os.File, file string) map[string]string {
	names := map[string]string{}
	handle, err := at.InRoot(root, file, unix.O_PATH)
	if err != nil {
		return names
	}
	defer handle.Close()
	var st unix.Stat_t
	if unix.Fstat(int(handle.Fd()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return names
	}
	f, err := os.OpenFile(fd.Path(handle), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return names
	}
	defer f.Close()
	text := make([]byte, min(max(st.Size, 0), maxAccounts))
	n, _ := f.ReadAt(text, 0) // what could be read counts
	parseNames(names, string(text[:n]))
	return names
}

// parseNames takes the first name of each id. passwd(5) and group(5) both have
// the name first and the id third.
func parseNames(names map[string]string, text string) {
	for line := range strings.Lines(text) {
		fields := strings.SplitN(line, ":", 4)
		if len(fields) < 4 || !plainName(fields[0]) {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if key := fmt.Sprint(id); err == nil && names[key] == "" {
			names[key] = fields[0]
		}
	}
}

// plainName refuses names that could pass for something else in a table: for a
// column, a number, or a command to the terminal.
func plainName(s string) bool {
	if s == "" || len(s) > maxName || strings.Trim(s, "0123456789") == "" {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsGraphic(r) || r == ' ' || r == ',' })
}
