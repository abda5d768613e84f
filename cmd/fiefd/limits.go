package main

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/harden"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// cappedResources are the resource limits that a user namespace remembers of
// its creator: what is used inside is also charged to the creator's effective
// uid in the namespace around it, and there the creator's soft limit of that
// moment is the cap, whatever the limits inside are. user_namespaces(7) does
// not say so; see set_userns_rlimit_max in kernel/user_namespace.c, Linux 5.14:
// 21d1c5e386bc "Reimplement RLIMIT_NPROC on top of ucounts" and those after it.
// A table, never written.
var cappedResources = [...]string{"nproc", "memlock", "sigpending", "msgqueue"}

// raiseLimits raises these limits of this process, and so of the monitors it
// will start, which create the namespaces: without end where CAP_SYS_RESOURCE
// permits it, else the soft limit to the hard one. A container is then held by
// its own limits alone, or by the daemon's hard ones.
//
// Containers inherit what the daemon was started with: spec.HostLimits comes
// before this, monitors come after it.
func raiseLimits() {
	var capped []any
	for _, name := range cappedResources {
		number, _ := harden.Rlimit(name)
		limit, err := raise(number)
		switch {
		case err != nil:
			slog.Warn("cannot raise a resource limit of the daemon", "limit", name, "error", err)
		case limit != unix.RLIM_INFINITY:
			capped = append(capped, slog.Uint64(name, limit))
		}
	}
	if len(capped) > 0 {
		slog.Info("no CAP_SYS_RESOURCE: a container can use no more than this daemon's hard limits, whatever its --ulimit says", capped...)
	}
}

// ulimits lays the default limits over those that containers inherit.
func (s settings) ulimits(inherited []record.Ulimit) ([]record.Ulimit, error) {
	out := slices.Clone(inherited)
	for _, text := range s.Ulimits {
		l, err := units.ParseUlimit(text)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, "use", "--default-ulimit "+text, err, "such as nofile=1024:4096")
		}
		out = slices.DeleteFunc(out, func(u record.Ulimit) bool { return u.Name == l.Name })
		out = append(out, record.Ulimit{Name: l.Name, Soft: l.Soft, Hard: l.Hard})
	}
	return out, nil
}

// raise raises a limit as far as it is permitted and returns what it became.
func raise(number int) (uint64, error) {
	err := unix.Setrlimit(number, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	if !errors.Is(err, unix.EPERM) {
		return unix.RLIM_INFINITY, err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(number, &limit); err != nil {
		return 0, err
	}
	limit.Cur = limit.Max
	return limit.Cur, unix.Setrlimit(number, &limit)
}
