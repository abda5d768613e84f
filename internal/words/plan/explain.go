package plan

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"syscall"

	"fief/internal/words/fault"
)

// Explain puts the failure of a step into words: what was being done, to what,
// the kernel's reason and what to do about it. Failures of the program itself
// carry exit code 126 or 127 and the wording that clients of OCI runtimes match.
// Errno 0 means that the process was killed in that step.
func (p *Plan) Explain(step int, errno syscall.Errno) *fault.Error {
	return p.ExplainFailure(&Failure{Step: step, Errno: errno})
}

// ExplainFailure is Explain with the system call named when there is one.
func (p *Plan) ExplainFailure(f *Failure) *fault.Error {
	if f.Step < 0 || f.Step >= len(p.Steps) {
		return fault.New(fault.Internal, "launch", "", "unknown step "+strconv.Itoa(f.Step), "")
	}
	s := &p.Steps[f.Step]
	switch {
	case f.Errno == 0:
		return fault.New(fault.Internal, s.Verb, s.Object, "the process was killed", "look for the kernel's out-of-memory killer in dmesg")
	case s.Kind == Exec:
		return explainExec(s.Object, f.Errno)
	case s.Kind == Chdir:
		e := fault.Say(fault.Invalid, "chdir to cwd ("+strconv.Quote(s.Object)+") set in config.json failed: "+f.Errno.Error())
		e.ExitCode = execCode(f.Errno)
		return e
	}
	if s.Kind == Hook {
		switch f.Errno {
		case syscall.ETIMEDOUT:
			return fault.New(fault.Internal, "run", s.Object, "it took longer than its timeout, and was killed", "")
		case syscall.ECANCELED:
			return fault.New(fault.Internal, "run", s.Object, "it cannot be run, or did not end with exit code 0", "")
		}
	}
	class, hint := judge(f.Step, s, f.Errno)
	return &fault.Error{Class: class, Op: s.Verb, Object: s.Object, Cause: cause(s, f), Hint: hint}
}

// HookSaid adds what createContainer hooks have printed, of which output holds the
// beginning, to the failure of one; other errors are as they are.
func HookSaid(err error, output io.ReaderAt) error {
	var why *fault.Error
	if !errors.As(err, &why) || why.Hint != "" || !strings.HasPrefix(why.Object, "createContainer hook") {
		return err
	}
	text := make([]byte, 1024)
	n, readErr := output.ReadAt(text, 0)
	if readErr != nil && readErr != io.EOF {
		return err
	}
	said := *why
	said.Hint = strings.TrimSpace(strings.ToValidUTF8(string(text[:n]), "?"))
	return &said
}

// cause names the system call before the reason. The errno stays in the chain.
func cause(s *Step, f *Failure) error {
	if f.Call < len(s.Ops) && s.Ops[f.Call].Kind == Call {
		return &callError{s.Ops[f.Call].Name, f.Errno}
	}
	return f.Errno
}

type callError struct {
	name  string
	errno syscall.Errno
}

func (e *callError) Error() string { return e.name + ": " + e.errno.Error() }
func (e *callError) Unwrap() error { return e.errno }

// explainExec says why a program cannot be run, as runc and crun do: Docker's
// clients and scripts look for these words.
func explainExec(name string, errno syscall.Errno) *fault.Error {
	e := &fault.Error{Class: fault.Invalid, ExitCode: execCode(errno)}
	quoted := strconv.Quote(name)
	switch {
	case errno == syscall.ENOENT && !strings.Contains(name, "/"):
		e.Cause = errors.New("exec: " + quoted + ": executable file not found in $PATH")
	case errno == syscall.ENOENT || errno == syscall.ENOTDIR:
		e.Cause = errors.New("exec: " + quoted + ": stat " + name + ": " + errno.Error())
		e.Hint = "the file, its interpreter (#!) or its dynamic loader is missing in the image"
	default:
		e.Cause = errors.New("exec: " + quoted + ": " + errno.Error())
	}
	switch errno {
	case syscall.ENOEXEC:
		e.Hint = "the file is for another architecture, or a script without #!"
	case syscall.E2BIG:
		e.Hint = "shorten arguments and environment"
	}
	return e
}

// execCode is the exit code of a program that could not be run: 127 not found,
// 126 found but not runnable (POSIX shell, 2.8.2).
func execCode(errno syscall.Errno) int {
	if errno == syscall.ENOENT || errno == syscall.ENOTDIR {
		return 127
	}
	return 126
}

// judgeJoin is judge for what a container that joins namespaces does first.
func judgeJoin(s *Step, errno syscall.Errno) (fault.Class, string) {
	switch {
	case s.Verb == "join" && errno == syscall.EINVAL:
		return fault.Invalid, "it is of another kind, a user namespace the caller is in, or a pid namespace outside the caller's"
	case s.Verb == "fork" && errno == syscall.ENOSPC:
		return fault.Exhausted, "raise the sysctls user.max_*_namespaces, in the joined user namespace too"
	case s.Verb == "fork" && errno == syscall.EAGAIN:
		return fault.Exhausted, "a container that joins namespaces is two processes for a moment: its limit of processes must allow them"
	case s.Verb == "fork" && errno == syscall.ENOMEM: // alloc_pid, of a namespace that takes no process any more
		return fault.Conflict, "the first process of the joined pid namespace has ended, or memory is short"
	}
	return fault.Internal, ""
}

// judge finds class and hint of other failures.
func judge(step int, s *Step, errno syscall.Errno) (fault.Class, string) {
	if class, hint := judgeJoin(s, errno); hint != "" {
		return class, hint
	}
	switch {
	case step == StepClone && errno == syscall.ENOSPC:
		return fault.Exhausted, "raise the sysctls user.max_*_namespaces"
	case step == StepClone && errno == syscall.EAGAIN, errno == syscall.ENOMEM, errno == syscall.EMFILE, errno == syscall.ENFILE:
		return fault.Exhausted, "raise the limits on processes, memory or open files"
	case step == StepClone && errno == syscall.EPERM:
		return fault.Denied, "run as root, or allow user namespaces on this host"
	case step == StepClone && errno == syscall.EBUSY:
		return fault.Conflict, "the cgroup has children with controllers enabled: use a leaf"
	case step == StepMaps && errno == syscall.EPERM:
		return fault.Denied, "mapping host id 0 needs CAP_SETFCAP; all mapped ids must exist on this side"
	case errno == syscall.ENOSYS || errno == syscall.EOPNOTSUPP:
		return fault.Unsupported, "this kernel lacks it: Linux 5.19 or later is needed"
	case errno == syscall.ENOSPC || errno == syscall.EDQUOT:
		return fault.Exhausted, "free some space"
	case s.Verb == "bind" && (errno == syscall.ENOTDIR || errno == syscall.EINVAL || errno == syscall.EISDIR):
		return fault.Invalid, "are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
	case s.Verb == "limit" && errno == syscall.EPERM:
		return fault.Denied, "raising a hard limit or lowering oom_score_adj takes CAP_SYS_RESOURCE, a priority above the usual CAP_SYS_NICE and a cgroup with real-time budget"
	case s.Verb == "label":
		return fault.Unsupported, "the security module is not enabled on this host, or does not know the label"
	case s.Verb == "sysctl" && errno == syscall.ENOENT:
		return fault.Invalid, "this kernel has no such sysctl"
	case s.Verb == "sysctl" || s.Verb == "mount" && errno == syscall.EINVAL:
		return fault.Invalid, "check the value or the mount's options"
	case errno == syscall.EPERM || errno == syscall.EACCES || errno == syscall.EROFS:
		return fault.Denied, ""
	}
	return fault.Internal, ""
}
