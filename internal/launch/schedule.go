package launch

import (
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// priorities fills in what the parent sets of the process's scheduling, and
// returns it in words: real-time policies, negative nice values and real-time
// I/O need privilege in the initial user namespace (sched(7), ioprio_set(2)).
func (c *compilation) priorities(k *plan.Clone) ([]string, error) {
	var text []string
	if s := c.process.Scheduler; s != nil {
		attr, err := scheduler(s)
		if err != nil {
			return nil, err
		}
		k.Scheduler = attr
		text = append(text, schedulerText(s))
	}
	if p := c.process.IOPriority; p != nil {
		class, ok := ioClass(p.Class)
		if !ok || p.Priority < 0 || p.Priority > 7 {
			return nil, fault.New(fault.Invalid, "set I/O priority", string(p.Class)+" "+strconv.Itoa(p.Priority),
				"not a class, or not a priority from 0 to 7", "see ioprio_set(2)")
		}
		k.IOPriority = class<<13 | uint32(p.Priority)
		text = append(text, "io="+strings.ToLower(strings.TrimPrefix(string(p.Class), "IOPRIO_CLASS_"))+":"+strconv.Itoa(p.Priority))
	}
	return text, nil
}

func ioClass(c specs.IOPriorityClass) (uint32, bool) {
	switch c {
	case specs.IOPRIO_CLASS_RT:
		return 1, true
	case specs.IOPRIO_CLASS_BE:
		return 2, true
	case specs.IOPRIO_CLASS_IDLE:
		return 3, true
	}
	return 0, false
}

func schedulerText(s *specs.Scheduler) string {
	text := "sched=" + strings.ToLower(strings.TrimPrefix(string(s.Policy), "SCHED_"))
	for _, n := range []struct {
		name  string
		value int64
	}{{"nice", int64(s.Nice)}, {"priority", int64(s.Priority)}, {"runtime", int64(s.Runtime)}, {"deadline", int64(s.Deadline)}, {"period", int64(s.Period)}} {
		if n.value != 0 {
			text += "," + n.name + "=" + strconv.FormatInt(n.value, 10)
		}
	}
	return text
}

// scheduler checks a scheduler and puts it into the kernel's form. What a policy
// does not look at is refused: it would be silently without effect.
func scheduler(s *specs.Scheduler) (*plan.Scheduler, error) {
	bad := func(why string) error {
		return fault.New(fault.Invalid, "use scheduler", string(s.Policy), why, "see sched_setattr(2)")
	}
	out := &plan.Scheduler{Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	switch s.Policy {
	case specs.SchedOther:
		out.Policy = unix.SCHED_NORMAL
	case specs.SchedFIFO:
		out.Policy = unix.SCHED_FIFO
	case specs.SchedRR:
		out.Policy = unix.SCHED_RR
	case specs.SchedBatch:
		out.Policy = unix.SCHED_BATCH
	case specs.SchedIdle:
		out.Policy = unix.SCHED_IDLE
	case specs.SchedDeadline:
		out.Policy = unix.SCHED_DEADLINE
	case specs.SchedISO:
		return nil, fault.New(fault.Unsupported, "use scheduler", string(s.Policy), "no Linux kernel has it: its number is only reserved", "use another policy")
	default:
		return nil, bad("not a policy")
	}
	switch {
	case s.Nice < -20 || s.Nice > 19:
		return nil, bad("nice " + strconv.Itoa(int(s.Nice)) + " is not from -20 to 19")
	case s.Priority != 0 && s.Policy != specs.SchedFIFO && s.Policy != specs.SchedRR:
		return nil, bad("only SCHED_FIFO and SCHED_RR have a priority")
	case (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0) && s.Policy != specs.SchedDeadline:
		return nil, bad("only SCHED_DEADLINE has runtime, deadline and period")
	}
	for _, f := range s.Flags {
		bit, ok := schedulerFlag(f)
		if !ok {
			return nil, bad("unknown flag " + strconv.Quote(string(f)))
		}
		out.Flags |= bit
	}
	return out, nil
}

func schedulerFlag(f specs.LinuxSchedulerFlag) (uint64, bool) {
	switch f {
	case specs.SchedFlagResetOnFork:
		return unix.SCHED_FLAG_RESET_ON_FORK, true
	case specs.SchedFlagReclaim:
		return unix.SCHED_FLAG_RECLAIM, true
	case specs.SchedFlagDLOverrun:
		return unix.SCHED_FLAG_DL_OVERRUN, true
	case specs.SchedFlagKeepPolicy:
		return unix.SCHED_FLAG_KEEP_POLICY, true
	case specs.SchedFlagKeepParams:
		return unix.SCHED_FLAG_KEEP_PARAMS, true
	case specs.SchedFlagUtilClampMin:
		return unix.SCHED_FLAG_UTIL_CLAMP_MIN, true
	case specs.SchedFlagUtilClampMax:
		return unix.SCHED_FLAG_UTIL_CLAMP_MAX, true
	}
	return 0, false
}

// affinity appends the setting of the CPUs the process may run on. A mask
// inherited from the parent is undone, cgroups clamp it again; an exec process
// that is told its CPUs gets those (OCI runtime spec, execCPUAffinity: they are
// not for the container's first process).
func (c *compilation) affinity(s *step, initial string) error {
	want := c.process.ExecCPUAffinity
	if want == nil {
		s.call(unix.SYS_SCHED_SETAFFINITY, plan.Int(0), plan.Int(len(allCPUs)), plan.Const(allCPUs, "all")).ignore(unix.EINVAL, unix.EPERM, unix.EBUSY)
		return nil
	}
	final, err := bitmask("execCPUAffinity", want.Final)
	if err != nil || !c.joined {
		return err
	}
	switch {
	case final != "":
		s.call(unix.SYS_SCHED_SETAFFINITY, plan.Int(0), plan.Int(len(final)), plan.Const(final, want.Final))
	case initial != "":
		// Up to Linux 6.1 a process born in another cpuset than its parent's gets all
		// of that one's CPUs; 6.2 keeps what was asked for.
		s.call(unix.SYS_SCHED_SETAFFINITY, plan.Int(0), plan.Int(len(initial)), plan.Const(initial, want.Initial)).ignore(unix.EINVAL, unix.EPERM, unix.EBUSY)
	default:
		s.call(unix.SYS_SCHED_SETAFFINITY, plan.Int(0), plan.Int(len(allCPUs)), plan.Const(allCPUs, "all")).ignore(unix.EINVAL, unix.EPERM, unix.EBUSY)
	}
	return nil
}

// maxBit bounds the numbers of CPUs and memory nodes.
const maxBit = 8 * len(allCPUs)

// bitmask turns a list such as "0-3,7" into the kernel's bit mask, whole
// 64-bit words of a little-endian machine; empty for an empty list.
func bitmask(what, list string) (string, error) {
	if list == "" {
		return "", nil
	}
	bad := fault.New(fault.Invalid, "use "+what, strconv.Quote(list), "not a list of numbers and ranges", `write it as in "0-3,7"`)
	mask := make([]byte, 0, 8)
	for _, part := range strings.Split(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		first, err := strconv.ParseUint(from, 10, 16)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(to, 10, 16)
		}
		if err != nil || last < first || last >= uint64(maxBit) {
			return "", bad
		}
		for len(mask) <= int(last/8) {
			mask = append(mask, 0, 0, 0, 0, 0, 0, 0, 0)
		}
		for n := first; n <= last; n++ {
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return string(mask), nil
}

// memoryPolicy appends the NUMA policy, which execve keeps (set_mempolicy(2)).
func (c *compilation) memoryPolicy() error {
	p := c.spec.Linux.MemoryPolicy
	if p == nil {
		return nil
	}
	mode, ok := memoryMode(p.Mode)
	if !ok {
		return fault.New(fault.Invalid, "use memory policy", string(p.Mode), "not a mode", "see set_mempolicy(2)")
	}
	for _, f := range p.Flags {
		bit, ok := memoryFlag(f)
		if !ok {
			return fault.New(fault.Invalid, "use memory policy", string(p.Mode), "unknown flag "+strconv.Quote(string(f)), "see set_mempolicy(2)")
		}
		mode |= bit
	}
	nodes, err := bitmask("memory nodes", p.Nodes)
	if err != nil {
		return err
	}
	s := c.b.step("set", "memory policy", strings.TrimSpace(string(p.Mode)+" "+p.Nodes), "")
	mask, bits := plan.Int(0), 0
	if nodes != "" {
		mask, bits = plan.Const(nodes, p.Nodes), 8*len(nodes)+1 // the kernel looks at one bit less than it is told
	}
	s.call(unix.SYS_SET_MEMPOLICY, plan.Bits(mode), mask, plan.Int(bits))
	s.end()
	return nil
}

// MemoryModes and MemoryFlags list what is known of memory policies, for
// `features`. The modes' places are their numbers (linux/mempolicy.h).
func MemoryModes() []string {
	return []string{string(specs.MpolDefault), string(specs.MpolPreferred), string(specs.MpolBind), string(specs.MpolInterleave), string(specs.MpolLocal), string(specs.MpolPreferredMany), string(specs.MpolWeightedInterleave)}
}

// MemoryFlags: see MemoryModes. The places count from bit 13.
func MemoryFlags() []string {
	return []string{string(specs.MpolFNumaBalancing), string(specs.MpolFRelativeNodes), string(specs.MpolFStaticNodes)}
}

func memoryMode(m specs.MemoryPolicyModeType) (uint64, bool) {
	n := slices.Index(MemoryModes(), string(m))
	return uint64(n), n >= 0
}

func memoryFlag(f specs.MemoryPolicyFlagType) (uint64, bool) {
	n := slices.Index(MemoryFlags(), string(f))
	return 1 << (13 + uint(max(n, 0))), n >= 0
}
