package launch

import (
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/words/plan"
)

// builder collects the steps of one plan.
type builder struct {
	plan  plan.Plan
	opt   Options
	stamp int

	*memory
}

// file names a descriptor the plan expects and returns its slot. All files are
// named before the first other slot.
func (b *builder) file(name string) plan.Slot {
	b.plan.Files = append(b.plan.Files, name)
	b.plan.Slots = append(b.plan.Slots, name)
	return plan.Slot(len(b.plan.Slots))
}

// slot returns the slot of that name, made when there is none yet.
func (b *builder) slot(name string) plan.Slot {
	if i := slices.Index(b.plan.Slots, name); i >= 0 {
		return plan.Slot(i + 1)
	}
	b.plan.Slots = append(b.plan.Slots, name)
	return plan.Slot(len(b.plan.Slots))
}

// has returns the slot of a file the plan expects, 0 when it does not.
func (b *builder) has(name string) plan.Slot {
	return plan.Slot(slices.Index(b.plan.Files, name) + 1)
}

// step is a step under construction; close it with end.
type step struct {
	b     *builder
	first int // index in b.ops
	plan.Step
}

func (b *builder) step(verb, object, detail, why string) *step {
	return &step{b, len(b.ops), plan.Step{Verb: verb, Object: object, Detail: detail, Why: why}}
}

func (s *step) end() { s.b.plan.Steps = append(s.b.plan.Steps, s.Step) }

// ref is an operation of a step, to be qualified further.
type ref struct {
	s *step
	i int
}

func (r ref) op() *plan.Op { return &r.s.Ops[r.i] }

func (s *step) add(o plan.Op, args ...plan.Arg) ref {
	first := len(s.b.args)
	s.b.args = append(s.b.args, args...)
	o.Args = s.b.args[first:len(s.b.args):len(s.b.args)]
	s.b.ops = append(s.b.ops, o)
	s.Ops = s.b.ops[s.first:len(s.b.ops):len(s.b.ops)]
	return ref{s, len(s.Ops) - 1}
}

// call appends a system call.
func (s *step) call(nr uint32, args ...plan.Arg) ref {
	return s.add(plan.Op{Nr: nr, Name: sysx.Name(nr)}, args...)
}

// save keeps the result.
func (r ref) save(to plan.Slot) ref {
	r.op().Save = to
	return r
}

// ignore lists errnos that are no failure.
func (r ref) ignore(errnos ...syscall.Errno) ref {
	copy(r.op().Ignore[:], errnos) // more than plan.MaxIgnore would not fit the encoded form either
	return r
}

// okHere lets success continue at the operation that is appended next.
func (r ref) okHere() { r.op().Skip = len(r.s.Ops) - r.i - 1 }

// ignoredHere lets an ignored error continue at the operation appended next.
func (r ref) ignoredHere() { r.op().OnIgnored = len(r.s.Ops) - r.i - 1 }

// jump appends an unconditional jump, to be aimed by okHere.
func (s *step) jump() ref {
	return s.add(plan.Op{Kind: plan.TestMem}, plan.Scratch("zero", 8, 0), plan.Int(0), plan.Int(0))
}

// isDir appends a test of the file in slot f; okHere aims where directories go.
func (s *step) isDir(f plan.Slot) ref {
	s.statx(f)
	return s.add(plan.Op{Kind: plan.TestMem}, plan.Scratch("statx", sysx.SizeofStatx, sysx.StatxMode), plan.Bits(unix.S_IFMT), plan.Bits(unix.S_IFDIR))
}

func (s *step) statx(f plan.Slot) {
	s.call(unix.SYS_STATX, plan.In(f), plan.Str(""), plan.Bits(unix.AT_EMPTY_PATH), plan.Bits(unix.STATX_TYPE),
		plan.Scratch("statx", sysx.SizeofStatx, 0))
}

// equals appends a test of 32 bits of the last statx or statfs result.
func (s *step) equals(memory plan.Arg, mask, want uint64) ref {
	return s.add(plan.Op{Kind: plan.TestMem}, memory, plan.Bits(mask), plan.Bits(want))
}

func (s *step) fail(errno syscall.Errno) {
	s.add(plan.Op{Kind: plan.Fail}, plan.Int(int(errno)))
}

func (s *step) copy(from, to plan.Slot) {
	s.add(plan.Op{Kind: plan.Copy, Save: to}, plan.Int(int(from)))
}

// mark appends a time stamp when tracing.
func (b *builder) mark(name string) {
	if !b.opt.Trace || b.stamp >= plan.MaxStamps {
		return
	}
	s := b.step("stamp", name, "", "")
	s.call(unix.SYS_CLOCK_GETTIME, plan.Int(unix.CLOCK_MONOTONIC), plan.Scratch(plan.StampName, 16*plan.MaxStamps, 16*b.stamp))
	s.end()
	b.stamp++
}

// openHow is struct open_how as an argument, followed by its size (openat2(2)).
func (b *builder) openHow(flags uint64) (plan.Arg, plan.Arg) {
	how, ok := b.hows[flags]
	if !ok {
		h := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		how = plan.Bytes(bytesOf(&h), "in-root "+openFlags(flags))
		b.hows[flags] = how
	}
	return how, plan.Int(unix.SizeofOpenHow)
}

// attr is struct mount_attr as an argument.
func (b *builder) attr(a unix.MountAttr, text string) plan.Arg {
	key := attrKey{a, text}
	arg, ok := b.attrs[key]
	if !ok {
		arg = plan.Bytes(bytesOf(&a), text)
		b.attrs[key] = arg
	}
	return arg
}

func openFlags(flags uint64) string {
	switch {
	case flags&unix.O_PATH != 0 && flags&unix.O_DIRECTORY != 0:
		return "path|directory"
	case flags&unix.O_PATH != 0:
		return "path"
	case flags&unix.O_WRONLY != 0:
		return "write"
	case flags&unix.O_RDWR != 0:
		return "read|write"
	}
	return "read"
}

// bytesOf is a fixed-size value's memory.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
