package proc

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/harden"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// hz is USER_HZ, the unit of times in /proc/PID/stat; fixed by the ABI on every
// architecture that Go runs on (proc_pid_stat(5)).
const hz = 100

// longArgs bounds the command line that a table shows of one process.
const longArgs = 4096

// descriptor is a column of Describe. An empty text is shown as "-".
type descriptor struct {
	name, title string
	of          func(v *view, p *process) string
}

// descriptors are those of podman-top(1), and the namespaces. A name with an h
// in front is about the host, the others are as the container sees them.
func descriptors() []descriptor {
	return []descriptor{
		{"user", "USER", func(v *view, p *process) string { return v.user(p, effective) }},
		{"huser", "HUSER", func(v *view, p *process) string { return v.host("etc/passwd", p.id("Uid", effective)) }},
		{"ruser", "RUSER", func(v *view, p *process) string { return v.user(p, realID) }},
		{"group", "GROUP", func(v *view, p *process) string { return v.group(p, p.id("Gid", effective)) }},
		{"hgroup", "HGROUP", func(v *view, p *process) string { return v.host("etc/group", p.id("Gid", effective)) }},
		{"rgroup", "RGROUP", func(v *view, p *process) string { return v.group(p, p.id("Gid", realID)) }},
		{"groups", "GROUPS", func(v *view, p *process) string {
			return p.each("Groups", func(id string) string { return v.group(p, id) })
		}},
		{"hgroups", "HGROUPS", func(v *view, p *process) string {
			return p.each("Groups", func(id string) string { return v.host("etc/group", id) })
		}},
		{"pid", "PID", func(v *view, p *process) string { return p.inside("NSpid", v.depth) }},
		{"hpid", "HPID", func(_ *view, p *process) string { return strconv.Itoa(p.pid) }},
		{"ppid", "PPID", func(v *view, p *process) string { return v.parent(p) }},
		{"pgid", "PGID", func(v *view, p *process) string { return p.inside("NSpgid", v.depth) }},
		{"comm", "COMMAND", func(_ *view, p *process) string { return p.comm }},
		{"args", "COMMAND", func(_ *view, p *process) string { return p.args() }},
		{"time", "TIME", func(_ *view, p *process) string { return clock(p.cpu(), true) }},
		{"etime", "ELAPSED", func(v *view, p *process) string { return clock(v.age(p), false) }},
		{"pcpu", "%CPU", func(v *view, p *process) string { return v.percent(p) }},
		{"tty", "TTY", func(_ *view, p *process) string { return terminal(p.number(statTTY)) }},
		{"state", "STATE", func(_ *view, p *process) string { return p.field(statState) }},
		{"nice", "NI", func(_ *view, p *process) string { return p.field(statNice) }},
		{"vsz", "VSZ", func(_ *view, p *process) string { return strconv.FormatInt(p.number(statVsize)/1024, 10) }},
		{"rss", "RSS", func(_ *view, p *process) string {
			return strconv.FormatInt(p.number(statRSS)*int64(os.Getpagesize())/1024, 10)
		}},
		{"capamb", "AMBIENT CAPS", capsOf("CapAmb")},
		{"capbnd", "BOUNDING CAPS", capsOf("CapBnd")},
		{"capeff", "EFFECTIVE CAPS", capsOf("CapEff")},
		{"capinh", "INHERITED CAPS", capsOf("CapInh")},
		{"capprm", "PERMITTED CAPS", capsOf("CapPrm")},
		{"seccomp", "SECCOMP", func(_ *view, p *process) string {
			return map[string]string{"0": "disabled", "1": "strict", "2": "filter"}[p.status["Seccomp"]]
		}},
		{"cgroupns", "CGROUPNS", namespaceOf("cgroup")},
		{"ipcns", "IPCNS", namespaceOf("ipc")},
		{"mntns", "MNTNS", namespaceOf("mnt")},
		{"netns", "NETNS", namespaceOf("net")},
		{"pidns", "PIDNS", namespaceOf("pid")},
		{"userns", "USERNS", namespaceOf("user")},
		{"utsns", "UTSNS", namespaceOf("uts")},
	}
}

// Positions in the fields of /proc/PID/stat, counted from the third, the state,
// as 0 (proc_pid_stat(5)).
const (
	statState = 0
	statTTY   = 4
	statUtime = 11
	statStime = 12
	statNice  = 16
	statStart = 19
	statVsize = 20
	statRSS   = 21
)

// Positions in the lines Uid and Gid of /proc/PID/status (proc_pid_status(5)).
const (
	realID    = 0
	effective = 1
)

// Descriptors reads words, each one name or several with commas between them,
// as names of columns that Describe knows; false when one is not.
func Descriptors(words []string) (names []string, ok bool) {
	known := descriptors()
	for _, w := range words {
		for name := range strings.SplitSeq(w, ",") {
			if !slices.ContainsFunc(known, func(d descriptor) bool { return d.name == name }) {
				return nil, false
			}
			names = append(names, name)
		}
	}
	return names, len(names) > 0
}

// Describe makes a table of pids, which are processes in the pid namespace of
// the process first or below it, with the columns that names says. It reads
// /proc and, for names of users and groups, the files of the host and of the
// containers, which are hostile. Processes that have ended are left out. No text
// holds a character that commands a terminal.
func Describe(first int, pids []int, names []string) (record.Top, error) {
	v, err := newView(first, pids)
	if err != nil {
		return record.Top{}, err
	}
	defer v.close()
	var columns []descriptor
	var top record.Top
	known := descriptors()
	for _, name := range names {
		i := slices.IndexFunc(known, func(d descriptor) bool { return d.name == name })
		if i < 0 {
			return record.Top{}, fault.New(fault.Invalid, "list processes", "", "unknown descriptor "+name, "")
		}
		columns = append(columns, known[i])
		top.Titles = append(top.Titles, known[i].title)
	}
	for _, pid := range pids {
		p, err := readProcess(pid)
		if err != nil || len(strings.Fields(p.status["NSpid"])) <= v.depth {
			continue // it has ended, or its number is a process of the host by now
		}
		var row []string
		for _, c := range columns {
			row = append(row, cell(c.of(v, p)))
		}
		top.Processes = append(top.Processes, row)
	}
	return top, nil
}

// cell replaces what a terminal would take for a command.
func cell(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// process is what /proc says of one.
type process struct {
	pid    int
	comm   string
	stat   []string          // from the third field on
	status map[string]string // by the name before the colon
}

func readProcess(pid int) (*process, error) {
	stat, err := read(pid, "stat")
	if err != nil {
		return nil, err
	}
	status, err := read(pid, "status")
	if err != nil {
		return nil, err
	}
	p := &process{pid: pid, status: map[string]string{}}
	p.comm, p.stat = parseStat(stat)
	for line := range strings.Lines(string(status)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			p.status[name] = strings.TrimSpace(value)
		}
	}
	return p, nil
}

// parseStat takes the command's name, which may hold anything, parentheses too,
// and the fields after it.
func parseStat(text []byte) (comm string, fields []string) {
	from, to := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if from < 0 || to < from {
		return "", nil
	}
	return string(text[from+1 : to]), strings.Fields(string(text[to+1:]))
}

func (p *process) field(n int) string {
	if n >= len(p.stat) {
		return ""
	}
	return p.stat[n]
}

func (p *process) number(n int) int64 {
	v, _ := strconv.ParseInt(p.field(n), 10, 64) // what is missing is zero
	return v
}

// id is one of the ids in the line Uid or Gid, as this process sees it.
func (p *process) id(line string, n int) string {
	if ids := strings.Fields(p.status[line]); n < len(ids) {
		return ids[n]
	}
	return ""
}

// each joins what of makes of every word of a line.
func (p *process) each(line string, of func(string) string) string {
	var out []string
	for _, word := range strings.Fields(p.status[line]) {
		out = append(out, of(word))
	}
	return strings.Join(out, ",")
}

// inside takes from a line of numbers, one for each pid namespace from this
// process's own downward, the one at depth.
func (p *process) inside(line string, depth int) string {
	if numbers := strings.Fields(p.status[line]); depth < len(numbers) {
		return numbers[depth]
	}
	return ""
}

func (p *process) args() string {
	text, err := read(p.pid, "cmdline")
	text = bytes.TrimRight(text, "\x00")
	if err != nil || len(text) == 0 {
		return "[" + p.comm + "]" // as ps(1) shows what has no command line
	}
	return string(bytes.ReplaceAll(text[:min(len(text), longArgs)], []byte{0}, []byte{' '}))
}

// cpu is the time that the process has used.
func (p *process) cpu() time.Duration {
	return time.Duration(p.number(statUtime)+p.number(statStime)) * time.Second / hz
}

// clock prints a time as ps(1) does: [DD-]HH:MM:SS, without the hours when there
// are none and they are not always wanted.
func clock(d time.Duration, hours bool) string {
	s := int64(max(d, 0) / time.Second)
	text := fmt.Sprintf("%02d:%02d", s/60%60, s%60)
	if hours || s >= 3600 {
		text = fmt.Sprintf("%02d:", s/3600%24) + text
	}
	if s >= 86400 {
		text = fmt.Sprintf("%d-", s/86400) + text
	}
	return text
}

// terminal names a controlling terminal by its device number, as the kernel
// packs it into an int (proc_pid_stat(5)). Pseudo-terminals have the majors 136
// to 143 (Documentation/admin-guide/devices.txt), and their numbers are those of
// the container's own devpts.
func terminal(packed int64) string {
	device := uint64(uint32(packed))
	major, minor := unix.Major(device), unix.Minor(device)
	switch {
	case packed == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)*256+minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

func capsOf(line string) func(*view, *process) string {
	return func(_ *view, p *process) string {
		mask, err := strconv.ParseUint(p.status[line], 16, 64)
		if err != nil {
			return "?"
		}
		return capNames(mask)
	}
}

// capNames prints a set of capabilities as podman-top(1) does: full, none, or
// their names.
func capNames(mask uint64) string {
	last, err := harden.LastCap()
	if mask == 0 {
		return "none"
	}
	if err == nil && mask == 1<<(last+1)-1 {
		return "full"
	}
	var out []string
	for n := range 64 {
		if mask&(1<<n) == 0 {
			continue
		}
		name, ok := harden.CapabilityName(n)
		if !ok {
			name = strconv.Itoa(n)
		}
		out = append(out, strings.TrimPrefix(name, "CAP_"))
	}
	return strings.Join(out, ",")
}

// namespaceOf is the number of a namespace, as in the link of /proc/PID/ns.
func namespaceOf(kind string) func(*view, *process) string {
	return func(_ *view, p *process) string {
		link, _ := os.Readlink(path(p.pid, "ns/"+kind)) // it may have ended
		return strings.TrimSuffix(strings.TrimPrefix(link, kind+":["), "]")
	}
}
