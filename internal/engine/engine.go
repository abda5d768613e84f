package engine

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/event"
	"fief/internal/image"
	"fief/internal/launch"
	"fief/internal/monitor"
	"fief/internal/snapshot"
	"fief/internal/spec"
	"fief/internal/words/ask"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// Config is how the daemon was told to behave. It is made once, by main, and
// never changed: a reload makes a new engine.
type Config struct {
	DataRoot   string
	ExecRoot   string
	Remap      idmap.Pair         // every container's map unless it asks otherwise; zero: a range each
	RemapName  string             // "user:group" as shown by info
	Userns     ask.Userns         // what containers get that ask for nothing, without a Remap; nil: a range each
	Log        ask.Log            // of containers that name no driver
	Runtime    string             // name of the default runtime
	Runtimes   []string           // every runtime's name, for info
	Others     map[string]Runtime // all but fief's own, by name
	Berths     int                // ranges and maps made ahead of need
	Calm       <-chan struct{}    // closed when work that nobody waits for may begin; nil: at once
	InitBinary string             // the monitor binary, which is also the init of --init
	Facts      spec.Facts         // what specs need of this machine
	Host       record.Info
}

// Rooms is everything the engine works with, made by main.
type Rooms struct {
	IDs        ids
	Accounts   accounts
	Spaces     spaces
	Images     images
	Layers     layers
	Volumes    volumes
	Monitors   monitors
	Compiler   *launch.Compiler
	Containers documents
	Networks   networks // nil: none but none and host
	Cgroups    cgroups
	Processes  processes
	Devices    devices
	Runtimes   runtimes
	Events     *event.Bus
}

// ids grants and takes back host ids.
type ids interface {
	Lease(owner string, size uint32) (record.Lease, error)
	// Release ends everything an owner has. In the directories left, files with
	// its ids may be; the ids are not leased again while they are.
	Release(owner string, left ...string)
	Rename(old, new string)
	// Hold keeps the ids of an explicit map from being leased, until Release.
	Hold(owner string, pair idmap.Pair) error
	// Share is Hold of ids that are others' as well.
	Share(owner string, pair idmap.Pair) error
	Info() record.PoolInfo
	Holders() ([]record.IDRange, error)
}

// accounts are the users and groups of the host.
type accounts interface {
	// Named makes a pair of the subordinate ids of two names; empty: none.
	Named(subuid, subgid string) (idmap.Pair, error)
	// UserName and GroupName are empty for ids without a name.
	UserName(id idmap.Host) string
	GroupName(id idmap.Host) string
}

// spaces are the namespaces of processes. The caller closes what it is given.
type spaces interface {
	// Of opens a namespace, by its name in /proc/PID/ns, of the process that has
	// had this pid since about started.
	Of(pid int, started time.Time, name string) (*os.File, error)
	// UserAt opens the user namespace that a path stands for, which is not the
	// daemon's own, and reads its maps.
	UserAt(path string) (*os.File, idmap.Pair, error)
	// Mount makes a detached mount of a file system that shows a namespace: ns, or
	// with nil the daemon's own. options are those of a proc.
	Mount(kind launch.Kind, ns *os.File, options []string) (*os.File, error)
	// Shm clones the mount at /dev/shm in a mount namespace, detached.
	Shm(mnt *os.File) (*os.File, error)
}

// images holds what can be run.
type images interface {
	Pull(context.Context, ask.PullImage, func(record.Progress)) (record.Image, error)
	Push(context.Context, ask.PushImage, func(record.Progress)) ([]record.Pushed, error)
	Login(context.Context, ask.RegistryAuth) (record.LoggedIn, error)
	Load(context.Context, ask.LoadImages, io.Reader, func(record.Progress)) ([]record.Image, error)
	LoadLayout(context.Context, ask.LoadImages, string, func(record.Progress)) ([]record.Image, error)
	Import(context.Context, ask.ImportImage, io.Reader) (record.Image, error)
	Save(context.Context, ask.SaveImages, io.Writer) error
	Commit(ctx context.Context, want image.Commit, layer func(io.Writer) (entries int64, err error)) (record.Image, error)
	Resolve(name string) (record.Image, error)
	ResolveFor(name, platform string) (record.Image, error)
	List() []record.Image
	Tag(src, dst string) error
	Verify(ctx context.Context, repair bool, tell func(record.Progress)) (record.Verification, error)
	Remove(name string, force bool, inUse func(imageID string) []image.Use) ([]record.Removed, error)
}

// layers makes root filesystems.
type layers interface {
	Way() (way, why string)
	CheckWay(way string) error
	Maps(pair idmap.Pair, way string) (*snapshot.Mapped, error)
	NewUpper() (string, error)
	DropUpper(name string)
	DropCopies(idmap.Pair) error
	SweepCopies(keep []idmap.Pair) error
	Rootfs(snapshot.Request) (snapshot.Root, error)
	SweepUppers(keep map[string]bool) error
	HasUpper(name string) bool
	SweepReplaced(inUse func(layer string) bool) error
	// Open opens a regular file as a container that does not run would see it.
	Open(upper string, layers []string, name string) (*os.File, error)
	Size(ctx context.Context, upper string, layers []string) (written, shown int64, err error)
	stored
}

// stored is the files of layers as they are on disk.
type stored interface {
	Changes(context.Context, snapshot.Written) ([]record.Change, error)
	WriteLayer(ctx context.Context, to io.Writer, w snapshot.Written) (entries int64, err error)
	Export(ctx context.Context, to io.Writer, w snapshot.Written) error
	// CopyDir makes a directory of these layers again in dst, with inside ids;
	// false when there is none.
	CopyDir(ctx context.Context, layers []string, host bool, name string, dst *os.File) (bool, error)
}

// monitors hands out idle monitors.
type monitors interface {
	Take(context.Context) (*monitor.Monitor, error)
	Close()
}

// documents is a bucket of state.db.
type documents interface {
	Put(key string, v any) error
	PutSoon(key string, v any) error
	Delete(key string) error
	Each(func(key string, raw []byte) error) error
}

// cgroups makes the groups that containers run in; docs/decisions.md says which
// there are. Names are those of groupOf.
type cgroups interface {
	// Create makes a group with its limits and device rules, and returns what a
	// first process enters it by: the descriptor for the clone, then those of v1
	// groups. None where there is no hierarchy that a process can be started
	// into; Unsupported when there are limits then.
	Create(name string, r *specs.LinuxResources) ([]*os.File, error)
	// Enter returns the same for another process.
	Enter(name string) ([]*os.File, error)
	// Limit changes what r names, live.
	Limit(name string, r *specs.LinuxResources) error
	// Kill ends every process of the group.
	Kill(name string) error
	Remove(name string) error
	// Pids are the group's processes.
	Pids(name string) ([]int, error)
	// Freeze stops every process of the group until Thaw; Unsupported where
	// there is no group.
	Freeze(ctx context.Context, name string) error
	Thaw(name string) error
	Stats(name string) (record.Stats, error)
	// OOMKills is how many of the group's processes the kernel has killed for
	// lack of memory.
	OOMKills(name string) (uint64, error)
	// Show returns a group's path from the root of the v2 hierarchy, empty where
	// there is none, and where to find that hierarchy for who expects it at
	// /sys/fs/cgroup, empty where that is right.
	Show(name string) (path, view string)
}

// devices are those that vendors describe under names.
type devices interface {
	// Inject adds to a configuration what their descriptions say.
	Inject(s *specs.Spec, names []string) error
}

// processes looks at the host's process table.
type processes interface {
	// Top runs the host's ps for processes, or when there are none for those of
	// pid's pid namespace.
	Top(pid int, pids []int, args []string) (record.Top, error)
	// Owner says who a process runs as and what it is.
	Owner(pid int) (uid, gid uint32, exe string, err error)
	// Root opens the root directory of the process that has had this pid since
	// about started, as that process sees it.
	Root(pid int, started time.Time) (*os.File, error)
	// Handle opens a pidfd of the process that has had this pid since about started.
	Handle(pid int, started time.Time) (*os.File, error)
	// Kill ends the process that has had this pid since about started.
	Kill(pid int, started time.Time) error
}

// Engine is the daemon without its doors. Its methods may be called from any
// goroutine.
//
// Lock order: a container's claim, then Engine.using, then Engine.table, then
// container.mu. The first two may be held across I/O; the others only guard
// memory.
type Engine struct {
	cfg    Config
	rooms  Rooms
	using  sync.RWMutex // read: an image is becoming a container; written: an image is being removed
	table  table
	berths *berths

	recovered chan struct{} // closed when verbs may be called
	hearNow   func()        // hears every monitor that was found and not heard yet; set by Recover
	closing   chan struct{} // closed by Close
}

// New makes an engine over its rooms. Recover must be called before any verb.
func New(cfg Config, rooms Rooms) *Engine {
	e := &Engine{cfg: cfg, rooms: rooms, recovered: make(chan struct{}), closing: make(chan struct{})}
	e.table.init()
	e.berths = newBerths(cfg.Berths, cfg.Calm, e.newBerth)
	return e
}

// Close stops what works ahead. Containers keep running.
func (e *Engine) Close() {
	close(e.closing)
	e.berths.close()
	if e.rooms.Networks != nil {
		e.rooms.Networks.Close()
	}
	e.rooms.Monitors.Close()
}

// Events calls each for every event of the span, as far back as events are
// remembered, until the span is over, ctx ends or each fails.
func (e *Engine) Events(ctx context.Context, span ask.Events, each func(record.Event) error) error {
	return e.rooms.Events.Listen(ctx, span, each)
}

// tell publishes a container event with the attributes docker clients expect.
func (e *Engine) tell(action string, c record.Container, more map[string]string) {
	attrs := map[string]string{"image": c.Image, "name": c.Name}
	for k, v := range c.Labels {
		attrs[k] = v
	}
	for k, v := range more {
		attrs[k] = v
	}
	e.rooms.Events.Publish(record.Event{Type: "container", Action: action, ID: c.ID, Attrs: attrs})
}
