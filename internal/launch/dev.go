package launch

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// device is a node to appear in the container.
type device struct {
	path         string // without leading slash
	block        bool
	fifo         bool
	major, minor uint32
	mode         uint32
	uid, gid     uint32
}

func (d device) slotName() string { return "node:" + d.path }

// standardDevices are those every container has (OCI runtime spec, Default
// Devices).
func standardDevices() []device {
	char := func(name string, major, minor uint32) device {
		return device{path: "dev/" + name, major: major, minor: minor, mode: 0o666}
	}
	return []device{char("null", 1, 3), char("zero", 1, 5), char("full", 1, 7), char("random", 1, 8), char("urandom", 1, 9), char("tty", 5, 0)}
}

// nodes lists the container's devices: those of the spec, and the standard ones
// it does not speak of.
func (c *compilation) nodes() ([]device, error) {
	var list []device
	given := map[string]bool{}
	for _, d := range c.spec.Linux.Devices {
		n, err := fromSpec(d)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
		given[n.path] = true
	}
	var all []device
	for _, d := range standardDevices() {
		if !given[d.path] {
			all = append(all, d)
		}
	}
	return append(all, list...), nil
}

func fromSpec(d specs.LinuxDevice) (device, error) {
	n := device{path: clean(d.Path), major: uint32(d.Major), minor: uint32(d.Minor), mode: 0o666}
	switch d.Type {
	case "c", "u":
	case "b":
		n.block = true
	case "p":
		n.fifo = true
	default:
		return n, fault.New(fault.Invalid, "make device", d.Path, "unknown type "+strconv.Quote(d.Type), "types are c, b, u and p")
	}
	if n.path == "" || d.Major < 0 || d.Minor < 0 {
		return n, fault.New(fault.Invalid, "make device", d.Path, "bad path or number", "")
	}
	if d.FileMode != nil {
		n.mode = uint32(d.FileMode.Perm())
	}
	if d.UID != nil {
		n.uid = *d.UID
	}
	if d.GID != nil {
		n.gid = *d.GID
	}
	return n, nil
}

// bindsDevices says whether nodes are the host's, bound. mknod is refused in a
// user namespace; where it is not, own nodes are better: a chmod by container
// root would reach the host's.
func (c *compilation) bindsDevices() bool { return c.mapsIDs() || c.opt.Nested }

// hostDev says that the user has bound a /dev: it is left as it is.
func (c *compilation) hostDev() bool {
	for _, m := range c.spec.Mounts {
		if clean(m.Destination) == "dev" && IsBind(m) {
			return true
		}
	}
	return false
}

// cloneDevices clones the nodes while the host's /dev is in reach. Each is
// checked to be what its name says.
func (c *compilation) cloneDevices() error {
	if !c.bindsDevices() || c.hostDev() {
		return nil
	}
	list, err := c.nodes()
	if err != nil {
		return err
	}
	for _, d := range list {
		if d.fifo {
			continue
		}
		s := c.b.step("clone", "/"+d.path, d.number(), "")
		at := c.b.slot(d.slotName())
		flags := plan.Bits(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
		s.call(unix.SYS_OPEN_TREE, plan.Int(unix.AT_FDCWD), plan.Str("/"+d.path), flags).save(at)
		s.verifyDevice(at, d)
		s.setAttr(at, false, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}, "nosuid,noexec")
		s.end()
	}
	return nil
}

func (d device) number() string {
	kind := "c "
	if d.block {
		kind = "b "
	}
	return kind + strconv.Itoa(int(d.major)) + ":" + strconv.Itoa(int(d.minor))
}

// verifyDevice appends the check that slot f is the device d (ENXIO otherwise).
func (s *step) verifyDevice(f plan.Slot, d device) {
	s.statx(f)
	memory := func(offset int) plan.Arg { return plan.Scratch("statx", sysx.SizeofStatx, offset) }
	format := uint64(unix.S_IFCHR)
	switch {
	case d.block:
		format = unix.S_IFBLK
	case d.fifo:
		format = unix.S_IFIFO
	}
	s.equals(memory(sysx.StatxMode), unix.S_IFMT, format).op().Skip = 1
	s.fail(unix.ENXIO)
	if d.fifo {
		return
	}
	s.equals(memory(sysx.StatxRdevMajor), 0xffffffff, uint64(d.major)).op().Skip = 1
	s.fail(unix.ENXIO)
	s.equals(memory(sysx.StatxRdevMinor), 0xffffffff, uint64(d.minor)).op().Skip = 1
	s.fail(unix.ENXIO)
}

// devices appends the nodes and links of /dev.
func (c *compilation) devices() error {
	if c.hostDev() {
		c.findNull()
		return nil
	}
	if c.dev == 0 {
		c.dev = c.b.slot("dev")
		s := c.b.step("open", "/dev", "", "")
		s.target(c.root, "dev", directory, c.dev)
		s.end()
	}
	list, err := c.nodes()
	if err != nil {
		return err
	}
	for _, d := range list {
		if c.bindsDevices() && !d.fifo {
			c.bindNode(d)
			continue
		}
		c.makeNode(d)
	}
	c.links()
	c.findNull()
	return nil
}

// bindNode appends the attaching of a cloned node.
func (c *compilation) bindNode(d device) {
	s := c.b.step("bind", d.path+" → /"+d.path, "", "")
	from, t := c.b.slot(d.slotName()), c.b.slot("target")
	name, inDev := strings.CutPrefix(d.path, "dev/")
	if inDev && !strings.Contains(name, "/") {
		flags := uint64(unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC)
		made := s.call(unix.SYS_OPENAT, plan.In(c.dev), plan.Str(name), plan.Bits(flags), plan.Bits(0o666)).save(t).ignore(unix.EEXIST)
		s.call(unix.SYS_OPENAT, plan.In(c.dev), plan.Str(name), plan.Bits(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC), plan.Int(0)).save(t)
		made.okHere()
	} else {
		s.target(c.root, d.path, file, t)
	}
	s.attach(from, t)
	s.end()
}

// makeNode appends a mknod, which a rootfs that has this very node already
// survives.
func (c *compilation) makeNode(d device) {
	s := c.b.step("mknod", "/"+d.path, d.number(), "")
	parent := c.b.slot("parent")
	dir, name := splitPath(d.path)
	if dir == "dev" {
		s.copy(c.dev, parent)
	} else {
		s.copy(c.root, parent)
		s.parents(c.root, dir, parent)
	}
	mode, dev := uint64(d.mode|unix.S_IFCHR), unix.Mkdev(d.major, d.minor)
	switch {
	case d.fifo:
		mode, dev = uint64(d.mode|unix.S_IFIFO), 0
	case d.block:
		mode = uint64(d.mode | unix.S_IFBLK)
	}
	made := s.call(unix.SYS_MKNODAT, plan.In(parent), plan.Str(name), plan.Bits(mode), plan.Bits(dev)).ignore(unix.EEXIST)
	there := c.b.slot("target")
	s.call(unix.SYS_OPENAT, plan.In(parent), plan.Str(name), plan.Bits(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC), plan.Int(0)).save(there)
	s.verifyDevice(there, d)
	made.okHere()
	if d.uid != 0 || d.gid != 0 {
		s.call(unix.SYS_FCHOWNAT, plan.In(parent), plan.Str(name), plan.Int(int(d.uid)), plan.Int(int(d.gid)), plan.Bits(unix.AT_SYMLINK_NOFOLLOW))
	}
	s.end()
}

func splitPath(p string) (dir, base string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

// links appends the links every container has (OCI runtime spec, Dev symbolic
// links) and ptmx, which must be the container's own devpts instance's.
func (c *compilation) links() {
	s := c.b.step("link", "/dev/{fd,stdin,stdout,stderr,core,ptmx}", "", "")
	for _, l := range [][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"}, {"pts/ptmx", "ptmx"},
	} {
		s.call(unix.SYS_SYMLINKAT, plan.Str(l[0]), plan.In(c.dev), plan.Str(l[1])).ignore(unix.EEXIST)
	}
	s.end()
}

// findNull opens the container's /dev/null, the source of masks, and makes sure
// that it is one: a planted file would unmask what it covers (CVE-2025-31133).
func (c *compilation) findNull() {
	c.null = c.b.slot("null")
	s := c.b.step("open", "/dev/null", "c 1:3", "to mask files with")
	s.lookup(c.root, "dev/null", unix.O_NOFOLLOW, c.null)
	s.verifyDevice(c.null, standardDevices()[0])
	s.end()
}
