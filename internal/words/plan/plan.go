// Package plan holds the launch plan: an ordered list of steps, each a few bare
// system calls, that a forked child carries out between clone3 and execve. A
// plan is a value: making, printing, encoding and explaining one does no I/O.
package plan

import "syscall"

// The steps that every plan begins with. The parent carries them out, all
// later ones are the child's.
const (
	StepClone  = iota // enter joined namespaces, make the process
	StepMaps          // write uid_map and gid_map
	StepLimits        // resource limits, oom_score_adj, owner of the stdio pipes
	FirstChildStep
)

// Slot is a place that holds a descriptor or another result while the child
// runs. Slot 0 is no slot; slots 1…len(Plan.Files) hold the descriptors handed
// in, in the order of Plan.Files.
type Slot int

// Plan is everything needed to start one process.
type Plan struct {
	Clone Clone
	Files []string // names of the descriptors expected: "rootfs", "mount:3", "stdin" …
	Slots []string // names of all slots, Files first: Slots[s-1] names slot s
	Steps []Step   // FirstChildStep steps of the parent, then the child's

	// Memory is where steps and encoded form lie when whoever made the plan
	// takes that back for the next one; nil when it is the plan's own.
	Memory Memory
}

// Memory encodes a plan into memory of its own.
type Memory interface {
	Encode(*Plan) ([]byte, error)
}

// Clone is the parent's part. Flags are clone3's CLONE_NEW* bits; there are none
// when the child's steps have a Fork, which has them instead. UIDMap and GIDMap
// are the kernel's text (user_namespaces(7)), empty without a new user
// namespace. Owner is the effective uid the user namespace is created with, so
// that its limits are counted apart from other containers' (kernel/ucount.c
// charges the creator's euid); 0 leaves the caller's own.
type Clone struct {
	Flags       uint64
	PIDSpace    Slot // pidfd of a process whose pid namespace the child is born in, or 0; the forking thread's own one stays
	Cgroup      Slot // O_PATH descriptor of a cgroup v2 directory (CLONE_INTO_CGROUP), or 0
	Owner       uint32
	UIDMap      string
	GIDMap      string
	Rlimits     []Rlimit
	OOMScoreAdj *int
	Scheduler   *Scheduler // nil: the caller's
	IOPriority  uint32     // as ioprio_set(2) takes it; 0: the caller's
	Affinity    string     // CPU mask of the forking thread while it forks, as sched_setaffinity(2) takes it; empty: its own
	TimeOffsets string     // text for /proc/PID/timens_offsets, written when the child has told TellClocks

	// StdioUID and StdioGID own pipes given as stdin, stdout and stderr: a
	// program may open /dev/stdout, and the owner of a pipe made by the host's
	// root is not mapped inside. Host ids; used when StdioOwned is set.
	StdioOwned         bool
	StdioUID, StdioGID uint32
}

// Scheduler is struct sched_attr (sched_setattr(2)) from its second word on.
type Scheduler struct {
	Policy                    uint32
	Flags                     uint64
	Nice                      int32
	Priority                  uint32
	Runtime, Deadline, Period uint64 // nanoseconds
}

// Messages of one byte that the child sends on the report socket.
const (
	TellConsole  = "c" // with the pseudoterminal's master
	TellGate     = "g" // everything is ready but the go-ahead of the gate
	TellListener = "l" // with the descriptor on which somebody answers for system calls
	TellClocks   = "t" // there is a time namespace whose clocks can be set
)

// Rlimit is a resource limit by its number (setrlimit(2)).
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}

// StepKind says how a failure of a step is put into words.
type StepKind uint8

// The kinds.
const (
	Plain StepKind = iota
	Exec           // the program itself, Object is its name: exit codes 126 and 127
	Chdir          // the working directory
	Hook           // a hook, Object is its name: ETIMEDOUT and ECANCELED are about it
)

// Step is one line of a plan: Verb Object, Detail (options), and Why, a reason
// worth printing. Ops are the system calls that carry it out.
type Step struct {
	Kind   StepKind
	Verb   string
	Object string
	Detail string
	Why    string
	Ops    []Op
}

// OpKind says what an operation is.
type OpKind uint8

// The kinds of operations. All but Call stand for something a flat list of
// system calls cannot say.
const (
	Call           OpKind = iota
	CloseOthers           // close every descriptor that is neither 0-2, nor in a file slot, nor the report socket
	ResetInherited        // every signal to its default, none blocked; Go's raised limit of open files lowered
	DropBounding          // drop each capability not in mask Args[0] from the bounding set
	Patch                 // store the 32-bit value of slot Args[0] at address Args[1]
	TestMem               // skip Skip operations when *Args[0] & Args[1] == Args[2] (32 bits)
	TestSlot              // skip Skip operations when slot Args[0] holds a value >= 0
	Copy                  // slot Save = slot Args[0]
	Fail                  // fail with the errno remembered, or Args[0]
	Forget                // forget the errno remembered
	CloseAll              // close every descriptor ≥ 3 + Args[5] but the report socket and the slots of the other Args, where not 0
	Fork                  // clone3 with flags Args[0]; the new process, a child of the parent, goes on, this one ends
	Spawn                 // a new child process carries out the next Skip operations, the last of which is an execve; Save is its pidfd
)

// Op is one operation. On success the next Skip operations of the step are
// skipped and the result is put into Save. An error listed in Ignore is no
// failure: Save becomes -1 and OnIgnored operations are skipped; with Remember
// the errno is kept for a later Fail, EACCES before all others (execvp(3)).
// Any other error ends the child and is reported.
type Op struct {
	Kind      OpKind
	Nr        uint32
	Name      string
	Args      []Arg
	Save      Slot
	Skip      int
	OnIgnored int
	Remember  bool
	Positive  bool                     // result 0 is a failure too (EPIPE): end of file
	Ignore    [MaxIgnore]syscall.Errno // 0: none
}

// MaxIgnore is the number of errnos an operation can ignore.
const MaxIgnore = 4

type argKind uint8

const (
	argInt argKind = iota
	argSlot
	argString
	argBytes
	argScratch
	argWords
)

// Arg is an argument of an operation. Use the constructors.
type Arg struct {
	kind argKind
	hex  bool
	plus int32  // argBytes: offset into it
	n    uint64 // argInt, argSlot; argScratch: size<<32 | offset
	data string // argString, argBytes: content; argScratch: name
	more *argMore
}

// argMore is what few arguments have: it keeps Arg small, of which a plan has
// more than a thousand.
type argMore struct {
	text  string // printed for argBytes
	words []Arg
}

// Plus is the address n bytes further; only for Bytes.
func (a Arg) Plus(n int) Arg {
	a.plus = int32(n)
	return a
}

// Int is a plain number.
func Int(n int) Arg { return Arg{kind: argInt, n: uint64(n)} }

// Bits is a set of flags, printed in hexadecimal.
func Bits(n uint64) Arg { return Arg{kind: argInt, n: n, hex: true} }

// In is the value of a slot.
func In(s Slot) Arg { return Arg{kind: argSlot, n: uint64(s)} }

// Str is the address of a NUL-terminated string.
func Str(s string) Arg { return Arg{kind: argString, data: s} }

// Bytes is the address of constant bytes, aligned to 8; text is what is printed
// for them.
func Bytes(b []byte, text string) Arg { return Const(string(b), text) }

// Const is Bytes of a string, which it does not copy.
func Const(content, text string) Arg {
	return Arg{kind: argBytes, data: content, more: &argMore{text: text}}
}

// Scratch is the address of size zeroed bytes that all operations naming it
// share, offset bytes into it.
func Scratch(name string, size, offset int) Arg {
	return Arg{kind: argScratch, data: name, n: uint64(size)<<32 | uint64(offset)}
}

// Words is the address of an array of 64-bit words, each an Int, Bits, Str,
// Bytes, Scratch or Words: argv, and structs that hold pointers.
func Words(words ...Arg) Arg { return Arg{kind: argWords, more: &argMore{words: words}} }

// Strings is the address of a NULL-terminated array of strings.
func Strings(list []string) Arg {
	words := make([]Arg, 0, len(list)+1)
	for _, s := range list {
		words = append(words, Str(s))
	}
	return Words(append(words, Int(0))...)
}
