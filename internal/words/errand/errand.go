// Package errand holds what a monitor is to have another OCI runtime do: one
// call of its command line, with the files and mounts that it shall find. As a
// plan it is made in one process and carried out in another, and its bytes can
// be told from a plan's.
package errand

import (
	"encoding/binary"
	"slices"
	"time"

	"fief/internal/words/fault"
)

// Verb is a call of the OCI runtime command line interface.
type Verb uint8

// The verbs.
const (
	Create Verb = iota + 1 // create, followed by start
	Exec                   // another process in the container
	Start                  // the second half of Create: for the process that makes the call
	Delete                 // delete --force
)

func (v Verb) String() string {
	return [...]string{"", "create", "exec", "start", "delete"}[v]
}

// What an errand's runtime finds in Place.
const (
	RootDir  = "rootfs"       // the root file system, beside ConfigFile
	RunDir   = "run"          // Dir
	Config   = "config.json"  // JSON of Create
	Process  = "process.json" // JSON of Exec
	MountDir = "m"            // other mounts
	SpaceDir = "ns"           // namespaces to join
)

// Errand is one call of a runtime. Slots are indices of the descriptors that
// come along; -1 is none.
type Errand struct {
	Verb    Verb
	Runtime string   // path of the binary
	Args    []string // before those that the verb has
	ID      string   // the container's
	Root    string   // where the runtime keeps its state
	Dir     string   // of files that live as long as the container; exists
	Place   string   // a directory that every user can reach, covered for the runtime alone
	View    string   // the cgroup v2 hierarchy to show at /sys/fs/cgroup; empty: what is there
	JSON    []byte
	TTY     bool
	Stdio   [3]int32 // slots
	Mounts  []Mount
	Groups  []int32       // slots: what is written to or, of a directory, whose cgroup.procs is, to enter a group
	Limit   time.Duration // for the call
}

// Mount is a detached mount or, below SpaceDir, a namespace, and where in Place
// it is put.
type Mount struct {
	Slot int32
	Path string
}

// Layout numbers what an encoded errand means, as plan.Layout does for plans.
const Layout = 1

// magic begins an encoded errand.
var magic = [8]byte{'f', 'e', 'r', 'r', 'a', 'n', 'd', Layout}

// Is reports whether bytes that are a plan's or an errand's are an errand's.
func Is(b []byte) bool { return len(b) >= len(magic) && [8]byte(b[:8]) == magic }

// Encode returns the errand's bytes.
func (e *Errand) Encode() []byte {
	c := coder{buf: slices.Clone(magic[:])}
	e.fields(&c)
	return c.buf
}

// Decode reads what Encode wrote. Errors are of class Corrupt. files is how
// many descriptors there are: every slot is one of them, or none.
func Decode(b []byte, files int) (*Errand, error) {
	if !Is(b) {
		return nil, corrupt("not an errand of this build")
	}
	c := coder{buf: b[len(magic):], reading: true}
	e := &Errand{}
	e.fields(&c)
	if c.bad || len(c.buf) != 0 || e.Verb < Create || e.Verb > Delete {
		return nil, corrupt("malformed")
	}
	slots := append(slices.Clone(e.Groups), e.Stdio[:]...)
	for _, m := range e.Mounts {
		slots = append(slots, m.Slot)
		if m.Slot < 0 {
			return nil, corrupt("a mount without a descriptor")
		}
	}
	for _, s := range slots {
		if s < -1 || int(s) >= files {
			return nil, corrupt("a descriptor that did not come along")
		}
	}
	return e, nil
}

func corrupt(cause string) error { return fault.New(fault.Corrupt, "read errand", "", cause, "") }

func (e *Errand) fields(c *coder) {
	verb := uint32(e.Verb)
	c.u32(&verb)
	c.bad = c.bad || verb > 255
	e.Verb = Verb(verb)
	for _, s := range []*string{&e.Runtime, &e.ID, &e.Root, &e.Dir, &e.Place, &e.View} {
		c.text(s)
	}
	c.list(len(e.Args), func(n int) { e.Args = make([]string, n) })
	for i := range e.Args {
		c.text(&e.Args[i])
	}
	c.bytes(&e.JSON)
	tty := uint32(0)
	if e.TTY {
		tty = 1
	}
	c.u32(&tty)
	c.bad = c.bad || tty > 1
	e.TTY = tty == 1
	for i := range e.Stdio {
		c.slot(&e.Stdio[i])
	}
	c.list(len(e.Mounts), func(n int) { e.Mounts = make([]Mount, n) })
	for i := range e.Mounts {
		c.slot(&e.Mounts[i].Slot)
		c.text(&e.Mounts[i].Path)
	}
	c.list(len(e.Groups), func(n int) { e.Groups = make([]int32, n) })
	for i := range e.Groups {
		c.slot(&e.Groups[i])
	}
	millis := uint32(e.Limit / time.Millisecond)
	c.u32(&millis)
	e.Limit = time.Duration(millis) * time.Millisecond
}

// coder walks the fields once to write them and once to read them.
type coder struct {
	buf     []byte
	reading bool
	bad     bool
}

func (c *coder) u32(p *uint32) {
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint32(c.buf, *p)
	} else if b := c.take(4); b != nil {
		*p = binary.LittleEndian.Uint32(b)
	}
}

func (c *coder) take(n int) []byte {
	if c.bad || n > len(c.buf) {
		c.bad = true
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

func (c *coder) slot(p *int32) {
	u := uint32(*p)
	c.u32(&u)
	*p = int32(u)
}

func (c *coder) bytes(p *[]byte) {
	n := uint32(len(*p))
	c.u32(&n)
	if !c.reading {
		c.buf = append(c.buf, *p...)
	} else if b := c.take(int(n)); len(b) > 0 {
		*p = slices.Clone(b)
	}
}

func (c *coder) text(p *string) {
	b := []byte(*p)
	c.bytes(&b)
	*p = string(b)
}

// list walks a length. Every element takes four bytes at least, so that a
// length cannot ask for more memory than there are bytes.
func (c *coder) list(have int, size func(n int)) {
	n := uint32(have)
	c.u32(&n)
	if !c.reading || c.bad {
		return
	}
	if uint64(n)*4 > uint64(len(c.buf)) {
		c.bad = true
		return
	}
	if n > 0 {
		size(int(n))
	}
}
