package launch

import (
	"strconv"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/harden"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// secure appends everything between the finished file system and execve. The
// filter is loaded before capabilities are dropped when no_new_privs is off,
// since loading it then needs one (seccomp(2)); else last, so that it need not
// allow what comes before. What comes after it is done with calls that programs
// need as well: filters older than close_range(2) and faccessat2(2) refuse both.
func (c *compilation) secure() error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	caps, err := capsOf(c.process.Capabilities)
	if err != nil {
		return err
	}
	c.applyLabels()
	c.keyring()
	c.ownLimits()
	if err := c.scheduling(); err != nil {
		return err
	}
	c.passDescriptors()
	c.bounding(caps)
	if early := !c.process.NoNewPrivileges && filter != nil; early {
		c.closeAll("cwd")
		c.load(filter)
		c.become(caps)
		c.closeDir()
		c.filtered = true
	} else {
		c.become(caps)
		c.closeAll("")
	}
	loaded := c.process.NoNewPrivileges && filter != nil && filter.listens()
	if loaded { // while there is somebody to hand the listener to
		c.noNewPrivileges()
		c.load(filter)
	}
	c.gate()
	c.startContainerHooks()
	if c.process.NoNewPrivileges && !loaded {
		c.noNewPrivileges()
		if filter != nil {
			c.load(filter)
		}
	}
	return nil
}

func (c *compilation) noNewPrivileges() {
	s := c.b.step("set", "no_new_privs", "", "")
	s.call(unix.SYS_PRCTL, plan.Int(unix.PR_SET_NO_NEW_PRIVS), plan.Int(1), plan.Int(0), plan.Int(0), plan.Int(0))
	s.end()
}

// keyring gives the container a session keyring of its own. Keys are counted by
// kuid, 200 by default (keyrings(7)): past that the parent's stays, which is
// empty of secrets.
func (c *compilation) keyring() {
	if c.opt.NoKeys {
		return
	}
	s := c.b.step("keyring", "_ses."+c.opt.ID, "", "")
	s.call(unix.SYS_KEYCTL, plan.Int(unix.KEYCTL_JOIN_SESSION_KEYRING), plan.Str("_ses."+c.opt.ID)).
		ignore(unix.EDQUOT, unix.ENOSYS, unix.EACCES, unix.ENOKEY)
	s.end()
}

// ownLimits repeats the resource limits the parent has set: see
// runtime.Start. Raising one here fails, and says so.
func (c *compilation) ownLimits() {
	if len(c.process.Rlimits) == 0 {
		return
	}
	s := c.b.step("limit", "resources", strconv.Itoa(len(c.process.Rlimits)), "")
	for _, r := range c.b.plan.Clone.Rlimits {
		limit := unix.Rlimit{Cur: r.Soft, Max: r.Hard}
		s.call(unix.SYS_PRLIMIT64, plan.Int(0), plan.Int(r.Resource), plan.Bytes(bytesOf(&limit), limitText(r.Soft)+":"+limitText(r.Hard)), plan.Int(0))
	}
	s.end()
}

// scheduling sets CPUs, umask, personality and memory policy.
func (c *compilation) scheduling() error {
	initial := c.b.plan.Clone.Affinity
	s := c.b.step("reset", "cpu affinity, umask", "", "")
	if err := c.affinity(s, initial); err != nil {
		return err
	}
	umask := 0o022
	if u := c.process.User.Umask; u != nil {
		umask = int(*u)
	}
	s.call(unix.SYS_UMASK, plan.Bits(uint64(umask)))
	if p := c.spec.Linux.Personality; p != nil {
		if len(p.Flags) > 0 {
			return fault.New(fault.Invalid, "set personality", string(p.Flags[0]), "no flag is defined", "leave flags out")
		}
		switch p.Domain {
		case specs.PerLinux:
			s.call(unix.SYS_PERSONALITY, plan.Bits(0))
		case specs.PerLinux32:
			s.call(unix.SYS_PERSONALITY, plan.Bits(8))
		default:
			return fault.New(fault.Invalid, "set personality", string(p.Domain), "not known", "")
		}
	}
	s.end()
	return c.memoryPolicy()
}

// allCPUs is 1 KiB of ones, more than any kernel has CPUs: it takes the bits it
// knows.
const (
	ones64  = "\xff\xff\xff\xff\xff\xff\xff\xff"
	ones512 = ones64 + ones64 + ones64 + ones64 + ones64 + ones64 + ones64 + ones64
	ones4K  = ones512 + ones512 + ones512 + ones512 + ones512 + ones512 + ones512 + ones512
	allCPUs = ones4K + ones4K
)

// capSets are capability sets as bits.
type capSets struct{ bounding, effective, inheritable, permitted, ambient uint64 }

// capsOf translates names; a nil list gives no capability at all.
func capsOf(l *specs.LinuxCapabilities) (capSets, error) {
	var c capSets
	if l == nil {
		return c, nil
	}
	for _, set := range []struct {
		names []string
		bits  *uint64
	}{{l.Bounding, &c.bounding}, {l.Effective, &c.effective}, {l.Inheritable, &c.inheritable}, {l.Permitted, &c.permitted}, {l.Ambient, &c.ambient}} {
		var err error
		if *set.bits, err = harden.CapMask(set.names); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *compilation) bounding(caps capSets) {
	s := c.b.step("drop", "capabilities of the bounding set", "keep "+hex(caps.bounding), "")
	s.add(plan.Op{Kind: plan.DropBounding}, plan.Bits(caps.bounding))
	s.end()
}

func hex(n uint64) string { return "0x" + strconv.FormatUint(n, 16) }

// become appends the change to the process's credentials. The kernel makes a
// process whose ids change dumpable as fs.suid_dumpable says (proc(5)): among
// others' processes it hides once more, as in enter.
func (c *compilation) become(caps capSets) {
	c.credentials(caps)
	if c.joined || c.ns.joinsAny(unix.CLONE_NEWPID|unix.CLONE_NEWUSER) {
		c.hide()
	}
}

// credentials appends groups, ids and capabilities.
func (c *compilation) credentials(caps capSets) {
	u := c.process.User
	s := c.b.step("become", "user "+strconv.Itoa(int(u.UID))+":"+strconv.Itoa(int(u.GID)), "groups "+idList(u.AdditionalGids), "")
	if u.UID != 0 {
		s.call(unix.SYS_PRCTL, plan.Int(unix.PR_SET_KEEPCAPS), plan.Int(1), plan.Int(0), plan.Int(0), plan.Int(0))
	}
	s.call(unix.SYS_SETGROUPS, plan.Int(len(u.AdditionalGids)), groupList(u.AdditionalGids))
	gid, uid := plan.Int(int(u.GID)), plan.Int(int(u.UID))
	s.call(unix.SYS_SETRESGID, gid, gid, gid)
	s.call(unix.SYS_SETRESUID, uid, uid, uid)
	s.end()
	c.enterAsUser()

	s = c.b.step("set", "capabilities", "effective "+hex(caps.effective)+" permitted "+hex(caps.permitted)+" inheritable "+hex(caps.inheritable), "")
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(caps.effective), Permitted: uint32(caps.permitted), Inheritable: uint32(caps.inheritable)},
		{Effective: uint32(caps.effective >> 32), Permitted: uint32(caps.permitted >> 32), Inheritable: uint32(caps.inheritable >> 32)},
	}
	s.call(unix.SYS_CAPSET, plan.Bytes(bytesOf(&header), "v3"), plan.Bytes(bytesOf(&data), "sets"))
	s.call(unix.SYS_PRCTL, plan.Int(unix.PR_CAP_AMBIENT), plan.Int(unix.PR_CAP_AMBIENT_CLEAR_ALL), plan.Int(0), plan.Int(0), plan.Int(0))
	// The kernel raises what is permitted and inheritable (capabilities(7)). Specs
	// that crun and runc write ask for more, and both run them without it.
	ambient := caps.ambient & caps.permitted & caps.inheritable
	for bit := range 64 {
		if ambient>>bit&1 != 0 {
			s.call(unix.SYS_PRCTL, plan.Int(unix.PR_CAP_AMBIENT), plan.Int(unix.PR_CAP_AMBIENT_RAISE), plan.Int(bit), plan.Int(0), plan.Int(0))
		}
	}
	s.end()
}

// enterAsUser tries the working directory again where root was refused.
func (c *compilation) enterAsUser() {
	s := c.b.step("chdir", c.process.Cwd, "as the user, where root may not", "")
	s.Kind = plan.Chdir
	done := s.add(plan.Op{Kind: plan.TestSlot}, plan.Int(int(c.b.slot("entered"))))
	s.call(unix.SYS_FCHDIR, plan.In(c.b.slot("cwd")))
	done.okHere()
	s.end()
}

func groupList(gids []uint32) plan.Arg {
	if len(gids) == 0 {
		return plan.Int(0)
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&gids[0])), 4*len(gids))
	return plan.Bytes(b, idList(gids))
}

func idList(ids []uint32) string {
	if len(ids) == 0 {
		return "none"
	}
	var out []string
	for _, id := range ids {
		out = append(out, strconv.Itoa(int(id)))
	}
	return strings.Join(out, ",")
}

// closeAll appends the closing of what the program does not get. With except,
// that slot's file stays open as well.
func (c *compilation) closeAll(except string) {
	s := c.b.step("close", "all descriptors but stdio", "", "")
	var keep []plan.Arg
	if except != "" {
		keep = append(keep, plan.Int(int(c.b.slot(except))))
	}
	for _, name := range []string{"gate", startState, answer} {
		if at := c.b.has(name); at != 0 || name == "gate" {
			keep = append(keep, plan.Int(int(at)))
		}
	}
	if c.opt.Passed > 0 {
		for len(keep) < 5 {
			keep = append(keep, plan.Int(0))
		}
		keep = append(keep, plan.Int(c.opt.Passed))
	}
	s.add(plan.Op{Kind: plan.CloseAll}, keep...)
	s.end()
}

// closeDir appends the closing of the working directory's descriptor: nothing in
// /proc/self/fd may lead anywhere at execve (CVE-2024-21626).
func (c *compilation) closeDir() {
	s := c.b.step("close", "working directory", "", "")
	s.call(unix.SYS_CLOSE, plan.In(c.b.slot("cwd")))
	s.end()
}

// filter is a compiled seccomp program.
type filter struct {
	code  string // struct sock_filter after struct sock_filter
	flags uint
}

const sizeofSockFilter = 8

// filter compiles the spec's profile, or finds it compiled.
func (c *compilation) filter() (*filter, error) {
	profile := c.spec.Linux.Seccomp
	if profile == nil {
		return nil, nil
	}
	f, err := c.compiler.compile(profile)
	if err == nil && f != nil && f.listens() && !c.opt.Assists {
		return nil, fault.New(fault.Unsupported, "launch with", "a seccomp listener", "not supported by this runtime", "use SCMP_ACT_ERRNO or SCMP_ACT_TRAP")
	}
	return f, err
}

// listens reports whether the filter has calls decided by somebody outside.
func (f *filter) listens() bool { return f.flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 }

func (c *Compiler) compile(profile *specs.LinuxSeccomp) (*filter, error) {
	if c.Filter == nil {
		return nil, fault.New(fault.Unsupported, "filter system calls", "", "no compiler for seccomp profiles", "run without a profile")
	}
	if c.Key == nil {
		return c.filter(profile)
	}
	key := c.Key(profile)
	c.mu.Lock()
	kept, ok := c.filters[key]
	c.mu.Unlock()
	if ok {
		return &kept, nil
	}
	f, err := c.filter(profile)
	if f == nil || err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.filters == nil || len(c.filters) >= maxFilters {
		c.filters = map[[32]byte]filter{}
	}
	c.filters[key] = *f
	return f, nil
}

// filter compiles a profile; nil is one that allows everything.
func (c *Compiler) filter(profile *specs.LinuxSeccomp) (*filter, error) {
	program, flags, err := c.Filter(profile)
	if err != nil || len(program) == 0 {
		return nil, err
	}
	return &filter{unsafe.String((*byte)(unsafe.Pointer(&program[0])), sizeofSockFilter*len(program)), flags}, nil
}

// maxFilters bounds the memory for compiled profiles, some 10 KiB each; profiles
// come from clients.
const maxFilters = 64

// load appends the loading of a system call filter. Its program is a struct
// sock_fprog: a length, then an address.
func (c *compilation) load(f *filter) {
	n := len(f.code) / sizeofSockFilter
	s := c.b.step("filter", "system calls", strconv.Itoa(n)+" instructions", "")
	program := plan.Words(plan.Int(n), plan.Const(f.code, "code"))
	loading := s.call(unix.SYS_SECCOMP, plan.Int(unix.SECCOMP_SET_MODE_FILTER), plan.Bits(uint64(f.flags)), program)
	if f.listens() {
		loading.save(c.b.slot("listener"))
	}
	s.end()
	if f.listens() {
		c.send(c.b.slot("listener"), "listener", plan.TellListener, "to who hands it on: nobody answers before")
		s := c.b.step("close", "listener", "", "")
		s.call(unix.SYS_CLOSE, plan.In(c.b.slot("listener")))
		s.end()
	}
}
