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

// cloneFlags are the namespaces made with the process. A time namespace whose
// clocks are to be set is none of them: clone3 enters it at once, and from then
// on nobody may set them (time_namespaces(7), EACCES).
func (c *compilation) cloneFlags() uint64 {
	if len(c.spec.Linux.TimeOffsets) > 0 {
		return c.ns.flags &^ unix.CLONE_NEWTIME
	}
	return c.ns.flags
}

// clocks checks the offsets and puts them into the kernel's form.
func (c *compilation) clocks(k *plan.Clone) ([]string, error) {
	offsets := c.spec.Linux.TimeOffsets
	if len(offsets) == 0 || c.joined {
		return nil, nil
	}
	if !c.ns.has(unix.CLONE_NEWTIME) {
		return nil, fault.New(fault.Invalid, "set clocks", "", "the container has no time namespace of its own", "give it one, without a path")
	}
	var lines, text []string
	for name, o := range offsets {
		if name != "monotonic" && name != "boottime" {
			return nil, fault.New(fault.Invalid, "set clock", strconv.Quote(name), "no clock that a time namespace has", "clocks are monotonic and boottime")
		}
		if o.Nanosecs >= 1e9 {
			return nil, fault.New(fault.Invalid, "set clock", name, strconv.Itoa(int(o.Nanosecs))+" nanoseconds are a second or more", "")
		}
		lines = append(lines, name+" "+strconv.FormatInt(o.Secs, 10)+" "+strconv.Itoa(int(o.Nanosecs))+"\n")
		text = append(text, name+"="+offsetText(o))
	}
	slices.Sort(lines)
	slices.Sort(text)
	k.TimeOffsets = strings.Join(lines, "")
	return text, nil
}

func offsetText(o specs.LinuxTimeOffset) string {
	text := strconv.FormatInt(o.Secs, 10)
	if o.Nanosecs != 0 {
		text += "." + strconv.Itoa(1e9 + int(o.Nanosecs))[1:]
	}
	return text
}

// makeClocks appends the making of a time namespace whose clocks the parent then
// sets: only a process that is not in it yet has one to set, and its own
// /proc/self/timens_offsets belongs to the host's root.
func (c *compilation) makeClocks() {
	if c.b.plan.Clone.TimeOffsets == "" {
		return
	}
	s := c.b.step("unshare", "time", "", "apart from the others: its clocks can be set only before it is entered")
	s.call(unix.SYS_UNSHARE, plan.Bits(unix.CLONE_NEWTIME))
	c.tell(s, plan.TellClocks)
	s.end()
}

// enterClocks appends the entering of that time namespace: execve does so by
// itself only since v6.1 (exec_task_namespaces).
func (c *compilation) enterClocks() {
	if c.b.plan.Clone.TimeOffsets == "" {
		return
	}
	s := c.b.step("enter", "time", "", "the host's proc is still in reach")
	at := c.b.slot("clocks")
	s.call(unix.SYS_OPENAT, plan.Int(unix.AT_FDCWD), plan.Str("/proc/self/ns/time_for_children"), plan.Bits(unix.O_RDONLY|unix.O_CLOEXEC), plan.Int(0)).save(at)
	s.call(unix.SYS_SETNS, plan.In(at), plan.Bits(unix.CLONE_NEWTIME))
	s.call(unix.SYS_CLOSE, plan.In(at))
	s.end()
}

// tell appends a message of one byte to the parent.
func (c *compilation) tell(s *step, what string) {
	message := plan.Words(plan.Int(0), plan.Int(0), plan.Words(plan.Const(what, what), plan.Int(1)), plan.Int(1), plan.Int(0), plan.Int(0), plan.Int(0))
	s.call(unix.SYS_SENDMSG, plan.In(c.b.slot(plan.ReportName)), message, plan.Bits(unix.MSG_NOSIGNAL))
}
