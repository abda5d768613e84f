package launch

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/plan"
)

// candidates are the paths to try for a program: it itself when it has a slash,
// else one for each absolute directory of the process's PATH. Directories
// relative to the working directory are left out, as package os/exec does: they
// let whoever may write there choose the program.
func candidates(p *specs.Process) []string {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	var out []string
	for _, dir := range strings.Split(searchPath(p.Env), ":") {
		if strings.HasPrefix(dir, "/") && name != "" {
			out = append(out, strings.TrimSuffix(dir, "/")+"/"+name)
		}
	}
	return out
}

// searchPath is the value of PATH; the last one given counts.
func searchPath(env []string) string {
	path := ""
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			path = value
		}
	}
	return path
}

// gate appends the wait for the go-ahead of another process. What can be known
// about the program is found out before it, while there is someone to tell.
func (c *compilation) gate() {
	gate := c.b.has("gate")
	if gate == 0 {
		return
	}
	s := c.b.step("find", c.process.Args[0], "", "before the gate: afterwards nobody listens")
	s.Kind = plan.Exec
	var may *ref
	if c.filtered { // a filter may refuse to tell: then start finds out
		r := s.call(unix.SYS_FACCESSAT2, plan.Int(unix.AT_FDCWD), plan.Str("/"), plan.Bits(unix.F_OK), plan.Bits(unix.AT_EACCESS)).
			ignore(unix.EPERM, unix.ENOSYS, unix.EACCES)
		may = &r
	}
	var found []ref
	for _, path := range candidates(c.process) {
		found = append(found, remembering(s.call(unix.SYS_FACCESSAT2, plan.Int(unix.AT_FDCWD), plan.Str(path), plan.Bits(unix.X_OK), plan.Bits(unix.AT_EACCESS))))
	}
	s.fail(unix.ENOENT)
	for _, r := range found {
		r.okHere()
	}
	if may != nil {
		may.ignoredHere()
	}
	s.add(plan.Op{Kind: plan.Forget})
	s.end()
	s = c.b.step("await", "gate", "", "")
	c.tell(s, plan.TellGate)
	s.call(unix.SYS_READ, plan.In(gate), plan.Scratch("byte", 8, 0), plan.Int(1)).op().Positive = true
	s.call(unix.SYS_CLOSE, plan.In(gate))
	s.end()
}

// remembering makes an operation go on to the next candidate, as execvp(3) does.
func remembering(r ref) ref {
	r.op().Remember = true
	return r.ignore(unix.ENOENT, unix.ENOTDIR, unix.EACCES)
}

// exec appends the last step.
func (c *compilation) exec() {
	p := c.process
	s := c.b.step("exec", p.Args[0], strings.Join(p.Args, " "), "")
	s.Kind = plan.Exec
	argv, env := plan.Strings(p.Args), plan.Strings(p.Env)
	for _, path := range candidates(p) {
		remembering(s.call(unix.SYS_EXECVE, plan.Str(path), argv, env))
	}
	s.fail(unix.ENOENT)
	s.end()
}

// Exec makes the plan that starts another process, p, in a running container of
// spec s. The plan expects, in this order: "cgroup" (option), "group:<i>" for each of Groups, "pidfd" of the
// container's first process, then "stdin", "stdout", "stderr" unless p has a
// terminal, "gate" (option) and "passed:<i>" for each of Passed. s is the spec the container was started with.
//
// The parent's thread enters the pid namespace for its next child, so that the
// child is born in it; the child enters the rest. Until then it is a process of
// the host inside the container's pid namespace: it is made untraceable and
// drops the parent's descriptors first (CVE-2016-9962).
func (c *Compiler) Exec(p *specs.Process, s *specs.Spec, o Options) (plan.Plan, error) {
	n, err := c.begin(s, p, o)
	if err != nil {
		return plan.Plan{}, err
	}
	n.joined = true
	if o.Cgroup {
		n.b.file("cgroup")
	}
	n.groupFiles()
	pidfd := n.b.file("pidfd")
	n.stdioFiles()
	if err := n.join(pidfd); err != nil {
		return plan.Plan{}, err
	}
	n.b.mark("joined")
	if p.Terminal {
		n.openTerminal()
		n.useTerminal()
	}
	n.changeDir()
	if err := n.secure(); err != nil {
		return plan.Plan{}, err
	}
	n.b.mark("secured")
	n.exec()
	return n.b.plan, nil
}

// join appends the steps of parent and child up to being root in the container.
func (c *compilation) join(pidfd plan.Slot) error {
	flags := c.ns.flags
	for _, j := range c.ns.joins {
		flag, _ := nsFlag(j.Type)
		flags |= flag
	}
	k := &c.b.plan.Clone
	k.Cgroup = c.b.has("cgroup")
	if flags&unix.CLONE_NEWPID != 0 {
		k.PIDSpace = pidfd
	}
	c.parentStep("clone", "", "joining "+nsText(flags&unix.CLONE_NEWPID), "")
	c.parentStep("map ids", "", "", "")
	if a := c.process.ExecCPUAffinity; a != nil {
		var err error
		if k.Affinity, err = bitmask("execCPUAffinity", a.Initial); err != nil {
			return err
		}
	}
	if err := c.limits(k); err != nil {
		return err
	}
	c.hide()
	c.shed()
	c.joinGroups()
	c.wake()
	c.openLabels()
	rest := flags &^ unix.CLONE_NEWPID
	s := c.b.step("join", nsText(rest), "", "")
	s.call(unix.SYS_SETNS, plan.In(pidfd), plan.Bits(rest))
	c.root = c.b.slot("root")
	s.call(unix.SYS_OPENAT, plan.Int(unix.AT_FDCWD), plan.Str("/"), plan.Bits(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), plan.Int(0)).save(c.root)
	s.end()
	c.identity()
	c.hide()
	return nil
}

// changeDir appends the entering of the working directory, which must exist.
func (c *compilation) changeDir() {
	s := c.b.step("chdir", c.process.Cwd, "", "")
	s.Kind = plan.Chdir
	at := c.b.slot("cwd")
	s.lookup(c.root, clean(c.process.Cwd), unix.O_DIRECTORY, at)
	s.call(unix.SYS_FCHDIR, plan.In(at)).save(c.b.slot("entered")).ignore(unix.EACCES)
	s.end()
}
