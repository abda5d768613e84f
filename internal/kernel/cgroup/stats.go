package cgroup

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Stats reads what the processes of a group have used. Where the memory
// controller is in v1 and no limit has needed it, memory is summed up from the
// processes that there are (proc_pid_status(5): RssAnon and RssShmem), and what
// else only v1 counts is zero.
func (t *Tree) Stats(name string) (record.Stats, error) {
	if err := t.usable(name); err != nil {
		return record.Stats{}, err
	}
	s := record.Stats{Read: time.Now()}
	dir := t.dir(name)
	table, err := readTable(t.fd(), dir+"/cpu.stat") // every group of v2 has the time, without a controller
	if err != nil {
		return s, t.failed("read statistics of cgroup", dir, err)
	}
	us := uint64(time.Microsecond)
	s.CPU = record.CPUStats{
		Total: table["usage_usec"] * us, User: table["user_usec"] * us, System: table["system_usec"] * us,
		Periods: table["nr_periods"], Throttled: table["nr_throttled"], ThrottledTime: table["throttled_usec"] * us,
	}
	if s.SystemCPU, s.Online, err = machineTime(); err != nil {
		return s, err
	}
	for _, part := range []func(string, *record.Stats) error{t.statThrottling, t.statMemory, t.statPids, t.statBlkio} {
		if err := part(name, &s); err != nil {
			return s, t.failed("read statistics of cgroup", dir, err)
		}
	}
	return s, nil
}

// absent is nil for a file or group that is not there.
func absent(err error) error {
	if err == unix.ENOENT || err == unix.ENODEV || err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}

func (t *Tree) statThrottling(name string, s *record.Stats) error {
	h, ok := t.in("cpu")
	if !ok {
		return nil
	}
	table, err := readTable(h.fd(), t.dir(name)+"/cpu.stat")
	s.CPU.Periods, s.CPU.Throttled, s.CPU.ThrottledTime = table["nr_periods"], table["nr_throttled"], table["throttled_time"]
	return absent(err)
}

func (t *Tree) statMemory(name string, s *record.Stats) (err error) {
	dir, root := t.dir(name), t.fd()
	usage, limit, peak, failures := "memory.current", "memory.max", "memory.peak", ""
	if h, ok := t.in("memory"); ok {
		root, usage, limit, peak, failures = h.fd(), "memory.usage_in_bytes", "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.failcnt"
	}
	total := machineMemory()
	m := &s.Memory
	m.Limit = total
	if m.Usage, err = readUint(root, dir+"/"+usage); err == unix.ENOENT {
		m.Usage, err = t.residentOf(name)
		m.Details = map[string]uint64{}
		return err
	}
	if err != nil {
		return err
	}
	if n, err := readUint(root, dir+"/"+limit); err == nil {
		m.Limit = min(n, total) // no limit of its own: the machine's
	}
	m.Max, _ = readUint(root, dir+"/"+peak) // memory.peak came with v5.19
	if failures != "" {
		m.Failures, _ = readUint(root, dir+"/"+failures)
	} else if events, err := readTable(root, dir+"/memory.events"); err == nil {
		m.Failures = events["max"]
	}
	m.Details, err = readTable(root, dir+"/memory.stat")
	return err
}

// residentOf sums up the memory of a group's processes that is theirs alone.
func (t *Tree) residentOf(name string) (sum uint64, err error) {
	pids, err := t.Pids(name)
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue // it has ended
		}
		for line := range bytes.Lines(text) {
			field, value, _ := strings.Cut(string(line), ":")
			if field != "RssAnon" && field != "RssShmem" {
				continue
			}
			n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			sum += n << 10
		}
	}
	return sum, err
}

func (t *Tree) statPids(name string, s *record.Stats) error {
	dir, root := t.dir(name), t.fd()
	if h, ok := t.in("pids"); ok {
		root = h.fd()
	}
	n, err := readUint(root, dir+"/pids.current")
	if err == unix.ENOENT { // no controller, or no group of it: its processes, without their threads
		pids, err := t.Pids(name)
		s.Pids.Current = uint64(len(pids))
		return err
	}
	s.Pids.Current = n
	if limit, err := readUint(root, dir+"/pids.max"); err == nil && limit != math.MaxUint64 {
		s.Pids.Limit = limit
	}
	return err
}

func (t *Tree) statBlkio(name string, s *record.Stats) error {
	dir := t.dir(name)
	h, ok := t.in("blkio")
	if !ok {
		text, err := read(t.fd(), dir+"/io.stat")
		s.Blkio = ioStat(text)
		return absent(err)
	}
	bytes, err := read(h.fd(), dir+"/blkio.throttle.io_service_bytes_recursive")
	if err != nil {
		return absent(err)
	}
	counts, err := read(h.fd(), dir+"/blkio.throttle.io_serviced_recursive")
	s.Blkio = blkioStat(bytes, counts)
	return absent(err)
}

// ioStat reads lines "MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …".
func ioStat(text string) (out []record.BlkioStat) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		major, minor, ok := deviceNumber(fields[0])
		if !ok {
			continue
		}
		n := map[string]uint64{}
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, "=")
			n[key], _ = strconv.ParseUint(value, 10, 64)
		}
		out = append(out, record.BlkioStat{Major: major, Minor: minor, Op: "read", Bytes: n["rbytes"], Count: n["rios"]},
			record.BlkioStat{Major: major, Minor: minor, Op: "write", Bytes: n["wbytes"], Count: n["wios"]})
	}
	return out
}

// blkioStat reads the lines "MAJOR:MINOR Read N" of two files of v1.
func blkioStat(bytes, counts string) (out []record.BlkioStat) {
	count := map[string]uint64{}
	for line := range strings.Lines(counts) {
		if at := strings.LastIndexByte(line, ' '); at > 0 {
			count[line[:at]], _ = strconv.ParseUint(strings.TrimSpace(line[at:]), 10, 64)
		}
	}
	for line := range strings.Lines(bytes) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[1] != "Read" && fields[1] != "Write" {
			continue
		}
		major, minor, ok := deviceNumber(fields[0])
		n, err := strconv.ParseUint(fields[2], 10, 64)
		if ok && err == nil {
			out = append(out, record.BlkioStat{Major: major, Minor: minor, Op: strings.ToLower(fields[1]), Bytes: n, Count: count[fields[0]+" "+fields[1]]})
		}
	}
	return out
}

func deviceNumber(s string) (major, minor uint64, ok bool) {
	a, b, _ := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, err1 == nil && err2 == nil
}

// machineTime is the first line of /proc/stat without its last two numbers, which
// are in the others already (proc_stat(5)), in nanoseconds, and how many
// processors there are lines of.
func machineTime() (ns uint64, online int, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, fault.Wrap(fault.Internal, "read", "/proc/stat", err, "")
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 8 || !strings.HasPrefix(fields[0], "cpu") {
			break
		}
		if fields[0] != "cpu" {
			online++
			continue
		}
		for _, f := range fields[1:8] {
			n, _ := strconv.ParseUint(f, 10, 64)
			ns += n * uint64(time.Second) / 100 // USER_HZ is 100 wherever Go runs
		}
	}
	return ns, online, nil
}

func machineMemory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

// OOMKills is how many processes of the group the kernel has killed for lack of
// memory (memory.events of v2; the same counter is in memory.oom_control of v1
// since v4.13). A group that the memory controller does not know counts none.
func (t *Tree) OOMKills(name string) (uint64, error) {
	if err := t.usable(name); err != nil {
		return 0, err
	}
	root, file := t.fd(), "/memory.events"
	if h, ok := t.in("memory"); ok {
		root, file = h.fd(), "/memory.oom_control"
	}
	table, err := readTable(root, t.dir(name)+file)
	return table["oom_kill"], t.failed("read events of cgroup", t.dir(name), absent(err))
}

// Abilities tries what the controllers of this machine can do, by the files that
// groups have.
func (t *Tree) Abilities() record.Abilities {
	a := record.Abilities{}
	_, a.CPUs, _ = machineTime()
	if t.mode == None {
		return a
	}
	root := func(controller string) int {
		if h, ok := t.in(controller); ok {
			return h.fd()
		}
		return t.fd()
	}
	has := func(controller, dir string, files ...string) bool {
		for _, f := range files {
			if unix.Faccessat(root(controller), dir+"/"+f, unix.F_OK, 0) == nil {
				return true
			}
		}
		return false
	}
	a.Devices = t.guards()
	probe := t.parent
	for _, h := range t.v1 {
		makeParents(h.fd(), probe+"/x")
	}
	makeParents(t.fd(), probe+"/x")
	if t.mode == Unified {
		t.enable(".", "memory", "cpu", "io", "pids", "cpuset")
	}
	a.Memory = has("memory", probe, "memory.limit_in_bytes", "memory.max")
	a.Swap = has("memory", probe, "memory.memsw.limit_in_bytes", "memory.swap.max")
	a.Reservation = has("memory", probe, "memory.soft_limit_in_bytes", "memory.low")
	a.Swappiness, a.OomKillDisable = has("memory", probe, "memory.swappiness"), has("memory", probe, "memory.oom_control")
	a.CPUShares, a.CPUQuota = has("cpu", probe, "cpu.shares", "cpu.weight"), has("cpu", probe, "cpu.cfs_quota_us", "cpu.max")
	a.Realtime = has("cpu", probe, "cpu.rt_runtime_us")
	a.Cpuset = has("cpuset", probe, "cpuset.cpus")
	a.Pids = has("pids", probe, "pids.max")
	a.BlkioWeight = has("blkio", probe, "blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight")
	a.BlkioWeightDevice = has("blkio", probe, "blkio.weight_device", "blkio.bfq.weight_device", "io.weight", "io.bfq.weight")
	a.BlkioReadBps = has("blkio", probe, "blkio.throttle.read_bps_device", "io.max")
	a.BlkioWriteBps = has("blkio", probe, "blkio.throttle.write_bps_device", "io.max")
	a.ReadIOps = has("blkio", probe, "blkio.throttle.read_iops_device", "io.max")
	a.WriteIOps = has("blkio", probe, "blkio.throttle.write_iops_device", "io.max")
	for _, f := range []struct {
		to    *string
		files []string
	}{{&a.Cpus, []string{"cpuset.effective_cpus", "cpuset.cpus.effective"}}, {&a.Mems, []string{"cpuset.effective_mems", "cpuset.mems.effective"}}} {
		for _, file := range f.files {
			if text, err := read(root("cpuset"), file); err == nil {
				*f.to = text
			}
		}
	}
	return a
}

// guards tries whether the kernel takes a device program.
func (t *Tree) guards() bool {
	var p program
	p.op(opMove, verdict, 0, 0, 1)
	p.op(opExit, 0, 0, 0, 0)
	fd, err := loadDeviceProgram(p.code)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}
