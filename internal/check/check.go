// Package check finds out what this host allows fief to do: its kernel, its
// file systems, its limits, its files of ids. Everything is tried, nothing is
// told from a version. A trial works on detached mounts, in threads and
// processes that end with it, and in one directory that it removes.
package check

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/probe"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// The groups, in the order of the report.
const (
	Daemon     = "daemon" // its own settings and programs; not looked at here
	Kernel     = "kernel"
	Namespaces = "user namespaces"
	Cgroups    = "cgroups"
	Storage    = "storage"
	Privileges = "privileges"
	Limits     = "limits"
	IDs        = "ids"
	Network    = "network"
	Host       = "host"
)

// Options says what to look at. Files that are left empty are the host's.
type Options struct {
	DataRoot, ExecRoot     string
	Remap                  string // the user of userns-remap whose lines are needed; empty: none
	First, Last            idmap.Host
	SubUID, SubGID, Passwd string
	NSSwitch, Proc         string
}

func (o Options) filled() Options {
	for _, f := range []struct {
		field *string
		path  string
	}{
		{&o.SubUID, "/etc/subuid"}, {&o.SubGID, "/etc/subgid"}, {&o.Passwd, "/etc/passwd"},
		{&o.NSSwitch, "/etc/nsswitch.conf"}, {&o.Proc, "/proc"},
	} {
		if *f.field == "" {
			*f.field = f.path
		}
	}
	return o
}

// Run looks at everything. Ladder, which may be nil, tries the ways of shifting
// in the empty directory it is given, and what it leaves there is removed. A
// failure to look is a check of its own: Run itself does not fail.
func Run(o Options, ladder func(dir string) ([]probe.Answer, error)) []record.Check {
	o = o.filled()
	var out []record.Check
	for _, part := range []func() []record.Check{
		kernel, func() []record.Check { return namespaces(o) }, cgroups, func() []record.Check { return storage(o, ladder) },
		func() []record.Check { return privileges(o) }, func() []record.Check { return limits(o) },
		func() []record.Check { return ids(o) }, networks, func() []record.Check { return host(o) },
	} {
		out = append(out, part()...)
	}
	return out
}

// trial is a check that is done by trying something.
type trial struct {
	name  string
	worst record.CheckState // what a refusal is: fail, warn or info
	root  bool              // it needs root
	do    func() error
	why   string // what is lost without it
	fix   string
}

// run tries. What cannot be tried without root is said to be skipped.
func (t trial) run(group string) record.Check {
	c := record.Check{Group: group, Name: t.name, State: record.CheckOK}
	if t.root && os.Geteuid() != 0 {
		return skipped(c, "it can only be tried as root")
	}
	if err := t.do(); err != nil {
		c.State, c.Found, c.Why, c.Fix = t.worst, err.Error(), t.why, cmp.Or(t.fix, fault.HintOf(err))
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			c.Fix = cmp.Or(fault.HintOf(err), privileged)
		}
	}
	return c
}

// privileged is the advice where the kernel has the thing and refuses it.
const privileged = "run it as the host's root, outside of containers and user namespaces, or let their filters and capabilities allow it"

func skipped(c record.Check, why string) record.Check {
	c.State, c.Why = record.CheckSkipped, why
	return c
}

func tryAll(group string, trials []trial) (out []record.Check) {
	for _, t := range trials {
		out = append(out, t.run(group))
	}
	return out
}

// existing is the nearest directory at or above path.
func existing(path string) string {
	for path = filepath.Clean(path); path != "/"; path = filepath.Dir(path) {
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			return path
		}
	}
	return "/"
}

// there tells of an errno that a system call which the kernel has gives for
// arguments that are wrong on purpose: only ENOSYS says that there is none.
// Filters of containers and virtual machines answer ENOSYS too, or EPERM.
func there(errno unix.Errno) error {
	if errno == unix.ENOSYS || errno == unix.EPERM {
		return fmt.Errorf("the call is refused: %w", errno)
	}
	return nil
}
