package spec

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/harden"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// defaultPath is what a process finds programs in unless its image says.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// process is the container's first one.
func process(c record.Container, f Facts, pair idmap.Pair) (*specs.Process, error) {
	if c.Path == "" {
		return nil, fault.Say(fault.Invalid, "no command specified")
	}
	caps, err := capabilities(c, f, pair)
	if err != nil {
		return nil, err
	}
	args := append([]string{c.Path}, c.Args...)
	if c.Init {
		args = append([]string{initPath, "init", "--"}, args...)
	}
	p := &specs.Process{
		Terminal:     c.TTY,
		Args:         args,
		Env:          environment(c, c.TTY, c.Env, f.User.Home),
		Capabilities: held(caps, f.User.UID),
	}
	return finish(p, c, f, pair, c.WorkDir)
}

// Exec makes another process for a running container, with the environment,
// limits and capabilities of the container. f.User is who the process runs as;
// of the other facts Rlimits and LastCap are used. Privileged gives every
// capability in the container's user namespace and leaves the system call
// filter as it is, as in Docker.
func Exec(c record.Container, e ask.Exec, f Facts) (*specs.Process, error) {
	if len(e.Cmd) == 0 || e.Cmd[0] == "" {
		return nil, fault.Say(fault.Invalid, "No exec command specified")
	}
	pair, err := identity(c)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(c, f, pair)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Terminal:     e.TTY,
		Args:         slices.Clone(e.Cmd),
		Env:          environment(c, e.TTY, slices.Concat(c.Env, e.Env), f.User.Home),
		Capabilities: held(caps, f.User.UID),
	}
	if e.Privileged {
		all, err := everything(f, pair)
		if err != nil {
			return nil, err
		}
		p.Capabilities = held(all, 0)
	}
	if e.ConsoleSize != [2]uint16{} {
		p.ConsoleSize = &specs.Box{Height: uint(e.ConsoleSize[0]), Width: uint(e.ConsoleSize[1])}
	}
	cwd := e.WorkDir
	if cwd == "" {
		cwd = c.WorkDir
	}
	return finish(p, c, f, pair, cwd)
}

// finish adds what processes of a container have in common.
func finish(p *specs.Process, c record.Container, f Facts, pair idmap.Pair, cwd string) (*specs.Process, error) {
	var err error
	if p.User, err = credentials(f.User, pair); err != nil {
		return nil, err
	}
	if p.Rlimits, err = rlimits(c.Ulimits, f.Rlimits); err != nil {
		return nil, err
	}
	if cwd == "" {
		cwd = "/"
	}
	if !path.IsAbs(cwd) {
		return nil, fault.Say(fault.Invalid, fmt.Sprintf("the working directory '%s' is invalid, it needs to be an absolute path", cwd))
	}
	p.Cwd = path.Clean(cwd)
	p.NoNewPrivileges = c.NoNewPrivs
	return p, nil
}

// credentials are the ids of a process, all of which must be mapped: setuid(2)
// and setgroups(2) would answer EINVAL. The primary group is among the
// additional ones, so that a process cannot lose a group that a file denies
// (CVE-2022-36109).
func credentials(u User, pair idmap.Pair) (specs.User, error) {
	umask := uint32(0o022)
	out := specs.User{UID: u.UID, GID: u.GID, Umask: &umask, AdditionalGids: []uint32{u.GID}}
	for _, g := range u.Groups {
		if !slices.Contains(out.AdditionalGids, g) {
			out.AdditionalGids = append(out.AdditionalGids, g)
		}
	}
	if pair.IsZero() {
		return out, nil
	}
	if err := mapped("user", pair.UID, u.UID); err != nil {
		return specs.User{}, err
	}
	return out, mapped("group", pair.GID, out.AdditionalGids...)
}

func mapped(what string, m idmap.Map, ids ...uint32) error {
	for _, id := range ids {
		if _, ok := m.ToHost(idmap.Inside(id)); !ok {
			return fault.New(fault.Invalid, "run as "+what, fmt.Sprint(id), "the container's user namespace does not map it",
				"give the container a larger range: --userns=auto:size=N, --uidmap, --gidmap")
		}
	}
	return nil
}

// environment is Docker's: its own variables, those of the image and the
// request in their place or after them, and HOME, which the runtime adds unless
// it is set. An entry without "=" takes a variable away.
func environment(c record.Container, tty bool, given []string, home string) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + c.Hostname}
	if tty {
		env = append(env, "TERM=xterm")
	}
	for _, entry := range given {
		name, _, isSet := strings.Cut(entry, "=")
		at := find(env, name)
		switch {
		case isSet && at >= 0:
			env[at] = entry
		case isSet:
			env = append(env, entry)
		case at >= 0:
			env = slices.Delete(env, at, at+1)
		}
	}
	if find(env, "HOME") < 0 {
		if home == "" {
			home = "/"
		}
		env = append(env, "HOME="+home)
	}
	return env
}

func find(env []string, name string) int {
	return slices.IndexFunc(env, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
}

// capabilities is the container's set. Without a user namespace CAP_MKNOD makes
// the node of the host's disk, which only device rules keep from being opened:
// where there are none it is left out of the default set, and refused when it is
// asked for, except with all others: a privileged container has the host's
// devices anyway. In a user namespace mknod(2) refuses devices by itself.
func capabilities(c record.Container, f Facts, pair idmap.Pair) ([]string, error) {
	drop := c.CapDrop
	if c.Privileged {
		return everything(f, pair) // as in Docker, whatever else was asked for
	}
	if !pair.IsZero() || f.Guarded {
		return harden.Caps(c.CapAdd, drop, f.LastCap)
	}
	asked, err := harden.Caps(c.CapAdd, append(slices.Clone(drop), "ALL"), f.LastCap)
	if err != nil {
		return nil, err
	}
	if slices.Contains(asked, "CAP_MKNOD") {
		return nil, fault.New(fault.Unsupported, "add capability", "CAP_MKNOD", "without a user namespace it opens the host's disks, and this machine has no device rules",
			"add --cap-drop MKNOD, or leave out --userns=host")
	}
	return harden.Caps(c.CapAdd, append(slices.Clone(drop), "CAP_MKNOD"), f.LastCap)
}

// everything is all that the kernel has or, without a user namespace, that the
// daemon has itself: more cannot be given away (capabilities(7), execve).
func everything(f Facts, pair idmap.Pair) ([]string, error) {
	all, err := harden.Caps([]string{"ALL"}, nil, f.LastCap)
	if err != nil || f.Bounding == nil || !pair.IsZero() {
		return all, err
	}
	return slices.DeleteFunc(all, func(name string) bool { return !slices.Contains(f.Bounding, name) }), nil
}

// held gives the sets of a process: one that is not root loses what it has at
// execve(2) and keeps the bounding set, for set-user-ID programs.
func held(caps []string, uid uint32) *specs.LinuxCapabilities {
	out := &specs.LinuxCapabilities{Bounding: caps}
	if uid == 0 {
		out.Permitted, out.Effective = caps, caps
	}
	return out
}

// rlimits are the container's, and the daemon's where it has none, by number.
func rlimits(asked, inherited []record.Ulimit) ([]specs.POSIXRlimit, error) {
	var byNumber []record.Ulimit // nameless: no such limit
	for _, list := range [][]record.Ulimit{inherited, asked} {
		for _, u := range list {
			n, ok := harden.Rlimit(u.Name)
			if !ok {
				return nil, fault.Say(fault.Invalid, "invalid ulimit type: "+u.Name)
			}
			if infinite(u.Soft) > infinite(u.Hard) {
				return nil, fault.Say(fault.Invalid, fmt.Sprintf("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard))
			}
			for len(byNumber) <= n {
				byNumber = append(byNumber, record.Ulimit{})
			}
			byNumber[n] = u
		}
	}
	if byNumber == nil {
		return nil, nil
	}
	out := make([]specs.POSIXRlimit, 0, len(byNumber))
	for n, u := range byNumber {
		if u.Name != "" {
			name, _ := harden.RlimitName(n)
			out = append(out, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: infinite(u.Soft), Hard: infinite(u.Hard)})
		}
	}
	return out, nil
}

// infinite turns -1 into RLIM_INFINITY.
func infinite(v int64) uint64 {
	if v < 0 {
		return math.MaxUint64
	}
	return uint64(v)
}
