package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// condition is one comparison of an argument, in the operators a filter has:
// the others are these with negate.
type condition struct {
	arg    uint8
	op     uint8 // opEqual, opGreater, opGreaterEqual
	negate bool
	mask   uint64 // all ones but for MASKED_EQ
	value  uint64
}

const (
	opEqual uint8 = iota
	opGreater
	opGreaterEqual
)

// rule holds when all its conditions do, and then the filter returns ret.
type rule struct {
	when []condition
	ret  uint32
}

// profile is a checked specs.LinuxSeccomp.
type profile struct {
	arches     map[specs.Arch]bool
	ret        uint32 // the default
	permissive bool   // the default lets calls through
	notify     bool   // a rule asks the listener
	calls      []call
}

// call is one entry of the profile's list: every rule holds for every name.
type call struct {
	names []string
	rules []rule // none when the action is the default
}

// handover is the call that a process under the new filter makes to hand its
// listener over: asked about it, nobody could answer yet.
const handover = "sendmsg"

func invalid(format string, args ...any) error {
	return fault.New(fault.Invalid, "use seccomp profile", "", fmt.Sprintf(format, args...), "")
}

// check validates p and brings it into the order the compiler works in.
func check(m machine, p *specs.LinuxSeccomp) (*profile, error) {
	if p.ListenerMetadata != "" && p.ListenerPath == "" {
		return nil, invalid("listenerMetadata is for a listenerPath, and there is none")
	}
	if p.DefaultAction == specs.ActNotify {
		return nil, invalid("SCMP_ACT_NOTIFY cannot be the default: the listener could not be handed over")
	}
	ret, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	out := &profile{arches: map[specs.Arch]bool{m.native(): true}, ret: ret}
	switch p.DefaultAction {
	// A tracer is expected to answer for calls it does not know.
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		out.permissive = true
	}
	known := Architectures()
	for _, a := range p.Architectures {
		if !slices.Contains(known, a) {
			return nil, invalid("architecture %q is unknown", a)
		}
		out.arches[a] = true
	}
	for _, s := range p.Syscalls {
		c, err := out.check(s)
		if err != nil {
			return nil, err
		}
		out.calls = append(out.calls, c)
		out.notify = out.notify || s.Action == specs.ActNotify
	}
	if out.notify && p.ListenerPath == "" {
		return nil, invalid("SCMP_ACT_NOTIFY needs a listenerPath")
	}
	return out, nil
}

func (p *profile) check(s specs.LinuxSyscall) (call, error) {
	c := call{names: s.Names}
	if len(s.Names) == 0 {
		return c, invalid("an entry of syscalls has no names")
	}
	ret, err := action(s.Action, s.ErrnoRet)
	if err != nil {
		return c, err
	}
	if s.Action == specs.ActNotify && slices.Contains(s.Names, handover) {
		return c, invalid("SCMP_ACT_NOTIFY cannot be asked for %s, by which the listener is handed over", handover)
	}
	rules, err := alternatives(s.Args, ret)
	if err != nil {
		return c, err
	}
	if ret == p.ret {
		return c, nil
	}
	if p.permissive {
		for _, name := range s.Names {
			if !anyHas(name) {
				return c, invalid("no system call is named %q, so it would stay allowed", name)
			}
		}
	}
	c.rules = rules
	return c, nil
}

// alternatives makes the rules of one entry: one of all its arguments, or one
// of each when an argument appears twice. runc kept the second meaning for old
// profiles, whose authors took the list for a disjunction (runc
// libcontainer/seccomp, matchCall).
func alternatives(args []specs.LinuxSeccompArg, ret uint32) ([]rule, error) {
	var seen [6]bool
	var conditions []condition
	twice := false
	for _, a := range args {
		c, err := comparison(a)
		if err != nil {
			return nil, err
		}
		twice = twice || seen[c.arg]
		seen[c.arg] = true
		conditions = append(conditions, c)
	}
	if !twice {
		return []rule{{conditions, ret}}, nil
	}
	var rules []rule
	for i := range conditions {
		rules = append(rules, rule{conditions[i : i+1 : i+1], ret})
	}
	return rules, nil
}

func comparison(a specs.LinuxSeccompArg) (condition, error) {
	if a.Index > 5 {
		return condition{}, invalid("argument index %d: a system call has arguments 0 to 5", a.Index)
	}
	c := condition{arg: uint8(a.Index), mask: 1<<64 - 1, value: a.Value}
	switch a.Op {
	case specs.OpEqualTo:
		c.op = opEqual
	case specs.OpNotEqual:
		c.op, c.negate = opEqual, true
	case specs.OpGreaterThan:
		c.op = opGreater
	case specs.OpLessEqual:
		c.op, c.negate = opGreater, true
	case specs.OpGreaterEqual:
		c.op = opGreaterEqual
	case specs.OpLessThan:
		c.op, c.negate = opGreaterEqual, true
	case specs.OpMaskedEqual:
		c.mask, c.value = a.Value, a.ValueTwo&a.Value
	default:
		return condition{}, invalid("operator %q is unknown", a.Op)
	}
	return c, nil
}

// action is the filter's return value for an action (seccomp(2)). errno may
// only be given with the two actions that carry one (OCI runtime spec,
// config-linux.md), and defaults to EPERM there.
func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	carries, limit := false, uint(0)
	var ret uint32
	switch a {
	case specs.ActErrno:
		// The kernel cuts larger values to MAX_ERRNO.
		ret, carries, limit = unix.SECCOMP_RET_ERRNO, true, 4095
	case specs.ActTrace:
		ret, carries, limit = unix.SECCOMP_RET_TRACE, true, unix.SECCOMP_RET_DATA
	case specs.ActAllow:
		ret = unix.SECCOMP_RET_ALLOW
	case specs.ActLog:
		ret = unix.SECCOMP_RET_LOG
	case specs.ActTrap:
		ret = unix.SECCOMP_RET_TRAP
	case specs.ActKill, specs.ActKillThread:
		ret = unix.SECCOMP_RET_KILL_THREAD
	case specs.ActKillProcess:
		ret = unix.SECCOMP_RET_KILL_PROCESS
	case specs.ActNotify:
		ret = unix.SECCOMP_RET_USER_NOTIF
	default:
		return 0, invalid("action %q is unknown", a)
	}
	switch {
	case errno == nil && carries:
		return ret | uint32(unix.EPERM), nil
	case errno == nil:
		return ret, nil
	case !carries:
		return 0, invalid("action %s has no errno", a)
	case *errno > limit:
		return 0, invalid("errno %d is above %d", *errno, limit)
	}
	return ret | uint32(*errno), nil
}

// flagBits are the flags for seccomp(2). notify says that there is a listener.
func flagBits(flags []specs.LinuxSeccompFlag, notify bool) (uint, error) {
	var bits uint
	if notify {
		bits = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	for _, f := range flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			bits |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			// Says how a listener waits; without one the kernel answers EINVAL.
			if notify {
				bits |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
			}
		case "SECCOMP_FILTER_FLAG_TSYNC":
			// See Compile.
		default:
			return 0, invalid("flag %q is unknown", f)
		}
	}
	return bits, nil
}

// Architectures are those of the OCI specification's list. Those of other machines
// are accepted: this kernel has no entry for them.
func Architectures() []specs.Arch {
	return []specs.Arch{specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
		specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64,
		specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390,
		specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64,
		specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB}
}
