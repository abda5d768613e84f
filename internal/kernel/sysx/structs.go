package sysx

// CloneArgs is struct clone_args (clone3(2)).
type CloneArgs struct {
	Flags      uint64
	PIDFD      uint64
	ChildTID   uint64
	ParentTID  uint64
	ExitSignal uint64
	Stack      uint64
	StackSize  uint64
	TLS        uint64
	SetTID     uint64
	SetTIDSize uint64
	Cgroup     uint64
}

// SizeofCloneArgs is the size that contains Cgroup, CLONE_ARGS_SIZE_VER2 (v5.7).
const SizeofCloneArgs = 88

// Bits of PR_SET_SECUREBITS (capabilities(7)).
const SecbitNoSetuidFixup = 1 << 2

// Offsets in struct statx (statx(2)), the same on every architecture.
const (
	SizeofStatx     = 256
	StatxMode       = 28 // 16 bits
	StatxRdevMajor  = 128
	StatxRdevMinor  = 132
	SizeofStatfs    = 120 // of struct statfs on 64-bit machines; f_type is its first word
	DevptsMagic     = 0x1cd1
	SizeofSigaction = 32 // of the kernel's struct sigaction: handler, flags, restorer, mask
)

// The layout of the attribute security.capability, all little-endian
// (linux/capability.h, struct vfs_cap_data and vfs_ns_cap_data;
// capabilities(7)): revision and flags, four words of capabilities and, in
// revision 3, the user id of the root that they are for.
const (
	CapRevisionMask = 0xff000000
	CapRevision2    = 0x02000000
	CapRevision3    = 0x03000000
	CapSize2        = 20
	CapSize3        = 24
)
