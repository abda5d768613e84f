package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
)

// setting is one value to be written into one file of a group.
type setting struct {
	controller string // as the hierarchy that has it names it
	file       string
	value      string
	ifThere    bool // a kernel without the file does by itself what the value says
}

// version says where a controller is.
type version uint8

const (
	nowhere version = iota
	inV1
	inV2
)

// settings translates resources into what is to be written, in an order that a
// new group takes. where tells where a controller is; those of v1 have their v1
// names. Errors are faults of class Invalid for what contradicts itself, and
// Unsupported for what the controller's version cannot do.
//
// What a field means is the OCI runtime specification's (config-linux.md); how v1
// terms become v2's is what the runtimes have agreed on, noted at each.
func settings(r *specs.LinuxResources, where func(controller string) version) ([]setting, error) {
	if r == nil {
		return nil, nil
	}
	l := lister{where: where}
	for _, part := range []func(*specs.LinuxResources) error{l.memory, l.cpu, l.realtime, l.cpuset, l.pids, l.blockIO, l.hugepages, l.network, l.unified} {
		if err := part(r); err != nil {
			return nil, err
		}
	}
	return l.list, nil
}

// lister collects settings.
type lister struct {
	where func(controller string) version
	list  []setting
}

func (l *lister) set(file, value string) {
	controller, _, _ := strings.Cut(file, ".")
	l.list = append(l.list, setting{controller: controller, file: file, value: value})
}

func (l *lister) number(file string, n int64) { l.set(file, strconv.FormatInt(n, 10)) }

// limit is number with the word of v2 for no limit.
func (l *lister) limit(file string, n int64) {
	if n < 0 {
		l.set(file, "max")
		return
	}
	l.number(file, n)
}

func cannot(what, why string) error {
	return fault.New(fault.Unsupported, "limit", what, why, "leave it out")
}

// given reports whether a number was asked for; zero asks for nothing.
func given(n *int64) bool { return n != nil && *n != 0 }

func (l *lister) memory(r *specs.LinuxResources) error {
	m := r.Memory
	if m == nil {
		return nil
	}
	if l.where("memory") == inV1 {
		return l.memoryV1(m)
	}
	if m.Swappiness != nil && *m.Swappiness <= 100 {
		return cannot("memory swappiness", "cgroup v2 has none for a group")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		return cannot("the killer of processes out of memory", "cgroup v2 cannot disable it")
	}
	if given(m.Limit) {
		l.limit("memory.max", *m.Limit)
	}
	if given(m.Reservation) {
		l.limit("memory.low", *m.Reservation)
	}
	return l.swapV2(m)
}

// swapV2 turns v1's limit of memory and swap together into v2's of swap alone.
func (l *lister) swapV2(m *specs.LinuxMemory) error {
	switch {
	case !given(m.Swap) && given(m.Limit) && *m.Limit < 0, given(m.Swap) && *m.Swap < 0:
		l.set("memory.swap.max", "max")
		l.list[len(l.list)-1].ifThere = true
		return nil
	case !given(m.Swap):
		return nil
	case !given(m.Limit) || *m.Limit < 0:
		return fault.New(fault.Invalid, "limit", "memory and swap", "without a limit of memory it is not known how much of it is swap", "limit memory as well")
	case *m.Swap < *m.Limit:
		return fault.New(fault.Invalid, "limit", "memory and swap", "it is less than the limit of memory", "it is the sum of both")
	}
	l.number("memory.swap.max", *m.Swap-*m.Limit)
	return nil
}

func (l *lister) memoryV1(m *specs.LinuxMemory) error {
	swap := m.Swap
	if !given(swap) && given(m.Limit) && *m.Limit < 0 {
		swap = m.Limit // memory cannot have more than both together
	}
	for _, n := range []struct {
		file  string
		value *int64
	}{
		{"memory.limit_in_bytes", m.Limit}, {"memory.memsw.limit_in_bytes", swap}, {"memory.soft_limit_in_bytes", m.Reservation},
		{"memory.kmem.tcp.limit_in_bytes", m.KernelTCP},
	} {
		if given(n.value) {
			l.number(n.file, max(*n.value, -1))
		}
	}
	if m.Swappiness != nil && *m.Swappiness <= 100 {
		l.number("memory.swappiness", int64(*m.Swappiness))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		l.set("memory.oom_control", "1")
	}
	return nil
}

// WeightOfShares converts cpu.shares of v1 (2 to 262144, 1024 by default) to
// cpu.weight of v2 (1 to 10000, 100 by default) by the curve through those three
// points that runc (v1.3.2) and crun (1.23) have had since the line through the
// outer two gave the default no more than 39. 0 is 0.
func WeightOfShares(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612.0-7.0/34.0)))
}

func (l *lister) cpu(r *specs.LinuxResources) error {
	c := r.CPU
	if c == nil {
		return nil
	}
	v1 := l.where("cpu") == inV1
	if c.Idle != nil {
		l.number("cpu.idle", *c.Idle)
	}
	shares := c.Shares != nil && *c.Shares != 0 && (c.Idle == nil || *c.Idle == 0) // an idle group has no weight to set
	switch {
	case shares && v1:
		l.set("cpu.shares", strconv.FormatUint(*c.Shares, 10))
	case shares:
		l.set("cpu.weight", strconv.FormatUint(WeightOfShares(*c.Shares), 10))
	}
	period := c.Period != nil && *c.Period != 0
	switch {
	case v1 && period:
		l.set("cpu.cfs_period_us", strconv.FormatUint(*c.Period, 10))
		fallthrough
	case v1:
		if given(c.Quota) {
			l.number("cpu.cfs_quota_us", max(*c.Quota, -1))
		}
		if c.Burst != nil {
			l.set("cpu.cfs_burst_us", strconv.FormatUint(*c.Burst, 10))
		}
		return nil
	case given(c.Quota) || period:
		l.set("cpu.max", cpuMax(c.Quota, c.Period))
	}
	if c.Burst != nil {
		l.set("cpu.max.burst", strconv.FormatUint(*c.Burst, 10))
	}
	return nil
}

// cpuMax is "QUOTA PERIOD" in microseconds; the kernel's period is 100 ms.
func cpuMax(quota *int64, period *uint64) string {
	text, every := "max", uint64(100000)
	if given(quota) && *quota > 0 {
		text = strconv.FormatInt(*quota, 10)
	}
	if period != nil && *period != 0 {
		every = *period
	}
	return text + " " + strconv.FormatUint(every, 10)
}

func (l *lister) realtime(r *specs.LinuxResources) error {
	c := r.CPU
	if c == nil || c.RealtimePeriod == nil && c.RealtimeRuntime == nil {
		return nil
	}
	period := c.RealtimePeriod != nil && *c.RealtimePeriod != 0
	if l.where("cpu") != inV1 {
		if period || given(c.RealtimeRuntime) {
			return cannot("realtime processor time", "cgroup v2 has no limit of it")
		}
		return nil
	}
	if period {
		l.set("cpu.rt_period_us", strconv.FormatUint(*c.RealtimePeriod, 10))
	}
	if given(c.RealtimeRuntime) {
		l.number("cpu.rt_runtime_us", *c.RealtimeRuntime)
	}
	return nil
}

func (l *lister) cpuset(r *specs.LinuxResources) error {
	if r.CPU == nil {
		return nil
	}
	if r.CPU.Cpus != "" {
		l.set("cpuset.cpus", r.CPU.Cpus)
	}
	if r.CPU.Mems != "" {
		l.set("cpuset.mems", r.CPU.Mems)
	}
	return nil
}

func (l *lister) pids(r *specs.LinuxResources) error {
	if r.Pids != nil && given(r.Pids.Limit) {
		l.limit("pids.max", *r.Pids.Limit)
	}
	return nil
}

// hugepages have the same names in both versions but the last part.
func (l *lister) hugepages(r *specs.LinuxResources) error {
	suffix := ".max"
	if l.where("hugetlb") == inV1 {
		suffix = ".limit_in_bytes"
	}
	for _, h := range r.HugepageLimits {
		if strings.ContainsAny(h.Pagesize, "/\x00") {
			return fault.New(fault.Invalid, "limit huge pages of", h.Pagesize, "that is no size", "such as 2MB")
		}
		l.set("hugetlb."+h.Pagesize+suffix, strconv.FormatUint(h.Limit, 10))
	}
	return nil
}

func (l *lister) network(r *specs.LinuxResources) error {
	for _, name := range sortedKeys(r.Rdma) {
		limit, text := r.Rdma[name], name
		if limit.HcaHandles != nil {
			text += fmt.Sprintf(" hca_handle=%d", *limit.HcaHandles)
		}
		if limit.HcaObjects != nil {
			text += fmt.Sprintf(" hca_object=%d", *limit.HcaObjects)
		}
		l.set("rdma.max", text)
	}
	n := r.Network
	if n == nil || n.ClassID == nil && len(n.Priorities) == 0 {
		return nil
	}
	if n.ClassID != nil {
		if l.where("net_cls") != inV1 {
			return cannot("network classes", "there is no v1 hierarchy for them, and v2 has none")
		}
		l.set("net_cls.classid", strconv.FormatUint(uint64(*n.ClassID), 10))
	}
	for _, p := range n.Priorities {
		if l.where("net_prio") != inV1 {
			return cannot("network priorities", "there is no v1 hierarchy for them, and v2 has none")
		}
		l.set("net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
	}
	return nil
}

// unified are files of v2 and their values as they are.
func (l *lister) unified(r *specs.LinuxResources) error {
	for _, file := range sortedKeys(r.Unified) {
		controller, _, dotted := strings.Cut(file, ".")
		if !dotted || controller == "cgroup" || strings.ContainsAny(file, "/\x00") {
			return fault.New(fault.Invalid, "set limit", file, "it is not a controller's file", "such as memory.high")
		}
		if l.where(controller) == inV1 {
			return cannot(file, "the controller "+controller+" is in a cgroup v1 hierarchy")
		}
		l.set(file, r.Unified[file])
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
