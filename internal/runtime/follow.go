package runtime

import (
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// ready does the parent's remaining steps and tells the child to go.
func (l *launch) ready(h hooks) error {
	if errno := l.writeMaps(); errno != 0 {
		return &plan.Failure{Step: plan.StepMaps, Errno: errno}
	}
	if errno := l.limits(); errno != 0 {
		return &plan.Failure{Step: plan.StepLimits, Errno: errno}
	}
	if err := l.setClocks(); err != nil {
		return err
	}
	if h.Prepare != nil {
		if err := h.Prepare(l.pid); err != nil {
			return err
		}
	}
	// A child killed meanwhile makes this EPIPE; follow says in which step.
	unix.SendmsgN(l.report, []byte{'!'}, nil, nil, unix.MSG_NOSIGNAL)
	if h.meanwhile != nil {
		return h.meanwhile()
	}
	return nil
}

// proc names a file in the child's /proc directory. The pid cannot have been
// reused: the child has not been reaped.
func (l *launch) proc(name string) string { return "/proc/" + strconv.Itoa(l.pid) + "/" + name }

// writeMaps fills uid_map and gid_map, each in one write at offset 0 as the
// kernel demands (user_namespaces(7)).
func (l *launch) writeMaps() syscall.Errno {
	if len(l.plan.UIDMap) == 0 {
		return 0
	}
	if errno := write(l.proc("uid_map"), l.plan.UIDMap); errno != 0 {
		return errno
	}
	return write(l.proc("gid_map"), l.plan.GIDMap)
}

func write(name string, content []byte) syscall.Errno {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err.(syscall.Errno)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, content); err != nil {
		return err.(syscall.Errno)
	}
	return 0
}

// defaultOpenFiles is the kernel's initial soft RLIMIT_NOFILE (INR_OPEN_CUR).
// Go raises its own soft limit to the hard one, and a program that closes every
// descriptor up to its limit, or uses select, must not inherit that
// (golang.org/issue/46279).
const defaultOpenFiles = 1024

// limits sets resource limits and oom_score_adj from here, where raising them
// may be permitted. The plan repeats the limits in the child: where the caller
// lacks CAP_SYS_RESOURCE and the child may lower its own, that is what counts,
// and where it may not the child's step says so. The number of open files is only
// raised: the child has more of them open than a small limit allows, until it has
// made the container.
func (l *launch) limits() syscall.Errno {
	for _, r := range l.plan.RlimitList {
		limit := unix.Rlimit{Cur: r.Soft, Max: r.Hard}
		var now unix.Rlimit
		if r.Resource == unix.RLIMIT_NOFILE && unix.Prlimit(l.pid, unix.RLIMIT_NOFILE, nil, &now) == nil {
			limit = unix.Rlimit{Cur: max(r.Soft, now.Cur), Max: max(r.Hard, now.Max)}
		}
		err := unix.Prlimit(l.pid, int(r.Resource), &limit, nil)
		if err != nil && err != unix.EPERM {
			return err.(syscall.Errno)
		}
	}
	if l.plan.Bools&plan.HasOOM != 0 {
		if errno := write(l.proc("oom_score_adj"), []byte(strconv.Itoa(int(l.plan.OOM)))); errno != 0 {
			return errno
		}
	}
	if errno := l.priorities(); errno != 0 {
		return errno
	}
	return l.ownStdio()
}

// setClocks writes the offsets of the time namespace that the child has made
// and not yet entered (time_namespaces(7)).
func (l *launch) setClocks() error {
	if len(l.plan.Offsets) == 0 {
		return nil
	}
	var data [1]byte
	n, err := unix.Read(l.report, data[:])
	for err == unix.EINTR {
		n, err = unix.Read(l.report, data[:])
	}
	if err != nil || n == 0 || data[0] != plan.TellClocks[0] {
		return l.verdict()
	}
	if errno := write(l.proc("timens_offsets"), l.plan.Offsets); errno != 0 {
		return &plan.Failure{Step: plan.StepLimits, Errno: errno}
	}
	return nil
}

// priorities sets scheduler and I/O priority from here, where that may be
// permitted: a user namespace's root has no say in them.
func (l *launch) priorities() syscall.Errno {
	if s := l.plan.Scheduler; s != nil {
		// sched_setattr leaves nice alone where the policy does not look at it: it
		// would stay the caller's.
		if s.Policy != unix.SCHED_NORMAL && s.Policy != unix.SCHED_BATCH && s.Flags&unix.SCHED_FLAG_KEEP_PARAMS == 0 {
			if err := unix.Setpriority(unix.PRIO_PROCESS, l.pid, int(s.Nice)); err != nil {
				return err.(syscall.Errno)
			}
		}
		if _, _, e := syscall.Syscall(unix.SYS_SCHED_SETATTR, uintptr(l.pid), uintptr(unsafe.Pointer(s)), 0); e != 0 {
			return e
		}
	}
	if p := l.plan.IOPriority; p != 0 {
		const process = 1 // IOPRIO_WHO_PROCESS
		if _, _, e := syscall.Syscall(unix.SYS_IOPRIO_SET, process, uintptr(l.pid), uintptr(p)); e != 0 {
			return e
		}
	}
	return 0
}

// openFiles is the limit the child sets when the plan has none: {0, 0} when it
// is low enough as it is.
func (l *launch) openFiles() [2]uint64 {
	for _, r := range l.plan.RlimitList {
		if r.Resource == unix.RLIMIT_NOFILE {
			return [2]uint64{}
		}
	}
	var now unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &now) != nil || now.Cur <= defaultOpenFiles {
		return [2]uint64{}
	}
	return [2]uint64{defaultOpenFiles, now.Max}
}

// ownStdio gives pipes among the standard streams to the container's user:
// opening /dev/stdout checks the pipe's owner.
func (l *launch) ownStdio() syscall.Errno {
	if l.plan.Bools&plan.OwnsStdio == 0 {
		return 0
	}
	for _, s := range l.plan.Stdio {
		var st unix.Stat_t
		if s == 0 || unix.Fstat(l.files[s-1], &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			continue
		}
		if err := unix.Fchown(l.files[s-1], int(l.plan.StdioUID), int(l.plan.StdioGID)); err != nil {
			return err.(syscall.Errno)
		}
	}
	return 0
}

// follow reads the report socket until the program runs, the child waits at its
// gate, or it has failed.
func (l *launch) follow(listener func(pid, fd int) error) error {
	for {
		var data [1]byte
		oob := make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := unix.Recvmsg(l.report, data[:], oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n == 0:
			return l.verdict()
		case data[0] == plan.TellGate[0]:
			return nil
		case data[0] == plan.TellConsole[0]:
			l.console = first(oob[:oobn], l.console)
		case data[0] == plan.TellListener[0]:
			if err := l.handOver(first(oob[:oobn], -1), listener); err != nil {
				return err
			}
		}
	}
}

// handOver passes on the descriptor on which the child's system calls wait for an
// answer.
func (l *launch) handOver(fd int, listener func(pid, fd int) error) error {
	if fd < 0 {
		return l.verdict()
	}
	defer unix.Close(fd)
	if listener == nil {
		return fault.New(fault.Internal, "hand over seccomp listener", "", "nobody takes it", "")
	}
	return listener(l.pid, fd)
}

// first returns the descriptor of a message unless there is one already; the
// others are closed.
func first(oob []byte, have int) int {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return have
	}
	for i := range list {
		fds, _ := unix.ParseUnixRights(&list[i])
		for _, fd := range fds {
			if have >= 0 {
				unix.Close(fd)
				continue
			}
			have = fd
		}
	}
	return have
}

// verdict reads from the shared memory how the child ended its plan. The report
// socket closes by execve or by death: a child whose last operation was no
// execve was killed.
func (l *launch) verdict() error {
	f := l.frame
	if f.PC >= l.plan.Ops {
		return &plan.Failure{Step: plan.FirstChildStep}
	}
	op := (*plan.RawOp)(unsafe.Pointer(&l.mem[l.planAt+int(l.plan.OpsAt)+int(f.PC)*int(unsafe.Sizeof(plan.RawOp{}))]))
	if f.Failed != 0 {
		return &plan.Failure{Step: int(op.Step), Call: int(op.Call), Errno: syscall.Errno(f.Errno)}
	}
	if op.Kind == uint8(plan.Call) && op.Nr == unix.SYS_EXECVE {
		return nil
	}
	return &plan.Failure{Step: int(op.Step), Call: int(op.Call)}
}
