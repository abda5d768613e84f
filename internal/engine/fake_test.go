package engine

import (
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/event"
	"fief/internal/image"
	"fief/internal/launch"
	"fief/internal/monitor"
	"fief/internal/snapshot"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// rooms is everything an engine needs up to a start, in memory. It counts what
// is held, so that a test can see that a failure left nothing.
type rooms struct {
	mu       sync.Mutex
	images   map[string]record.Image
	leases   map[string]record.Lease
	held     map[string]idmap.Pair
	uppers   map[string]bool
	stored   map[string]any
	next     idmap.Host
	upperErr error
	storeErr error
}

func newRooms() *rooms {
	return &rooms{images: map[string]record.Image{}, leases: map[string]record.Lease{}, held: map[string]idmap.Pair{},
		uppers: map[string]bool{}, stored: map[string]any{}, next: 524288}
}

// engine returns an engine over the rooms that makes nothing ahead of need.
func (r *rooms) engine(t *testing.T) *Engine {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{DataRoot: dir + "/data", ExecRoot: dir + "/run", Runtime: ownRuntime, Runtimes: []string{ownRuntime, "crun"}}
	if _, err := Stored(cfg, (*documentsFake)(r)); err != nil {
		t.Fatal(err)
	}
	e := New(cfg, Rooms{
		IDs: (*idsFake)(r), Accounts: accountsFake{}, Spaces: spacesFake{}, Images: (*imagesFake)(r), Layers: (*layersFake)(r), Volumes: volumesFake{}, Monitors: noMonitors{},
		Containers: (*documentsFake)(r), Cgroups: noCgroups{}, Processes: noProcesses{}, Events: &event.Bus{},
	})
	t.Cleanup(e.Close)
	return e
}

// left says what is still held.
func (r *rooms) left() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.leases) + len(r.held) + len(r.uppers) + len(r.stored)
}

type idsFake rooms

func (f *idsFake) Lease(owner string, size uint32) (record.Lease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := record.Lease{Base: f.next, Size: size}
	f.next += 65536
	f.leases[owner] = l
	return l, nil
}

func (f *idsFake) Release(owner string, _ ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.leases, owner)
	delete(f.held, owner)
}

func (f *idsFake) Rename(old, new string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l, ok := f.leases[old]; ok {
		delete(f.leases, old)
		f.leases[new] = l
	}
	if pair, ok := f.held[old]; ok {
		delete(f.held, old)
		f.held[new] = pair
	}
}

func (f *idsFake) Hold(owner string, pair idmap.Pair) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[owner] = pair
	return nil
}

func (f *idsFake) Share(owner string, pair idmap.Pair) error { return f.Hold(owner, pair) }

func (f *idsFake) Info() record.PoolInfo { return record.PoolInfo{} }

func (f *idsFake) Holders() ([]record.IDRange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []record.IDRange
	for owner, l := range f.leases {
		out = append(out, record.IDRange{First: l.Base, Last: l.Base + idmap.Host(l.Size-1), UID: true, GID: true, Kind: record.IDLease, Holder: owner})
	}
	return out, nil
}

// accountsFake knows one user, alice, with uid and gid 1000 and a range.
type accountsFake struct{}

func (accountsFake) Named(uid, gid string) (idmap.Pair, error) {
	if uid != "alice" || gid != "alice" {
		return idmap.Pair{}, fault.New(fault.Invalid, "use ranges of", uid, "none", "")
	}
	return idmap.Range(100000, 65536)
}

func (accountsFake) UserName(id idmap.Host) string {
	if id == 1000 {
		return "alice"
	}
	return ""
}

func (a accountsFake) GroupName(id idmap.Host) string { return a.UserName(id) }

// spacesFake has one user namespace, at /ns.
type spacesFake struct{}

func (spacesFake) Of(int, time.Time, string) (*os.File, error) { return nil, errFake }

func (spacesFake) UserAt(path string) (*os.File, idmap.Pair, error) {
	if path != "/ns" {
		return nil, idmap.Pair{}, errFake
	}
	pair, err := idmap.Range(900000, 1000)
	if err != nil {
		return nil, pair, err
	}
	f, err := os.Open(os.DevNull)
	return f, pair, err
}

func (spacesFake) Mount(launch.Kind, *os.File, []string) (*os.File, error) { return nil, errFake }
func (spacesFake) Shm(*os.File) (*os.File, error)                          { return nil, errFake }

type imagesFake rooms

func (f *imagesFake) Resolve(name string) (record.Image, error) {
	if img, ok := f.images[name]; ok {
		return img, nil
	}
	return record.Image{}, fault.Say(fault.NotFound, "No such image: "+name+":latest")
}

func (f *imagesFake) ResolveFor(name, platform string) (record.Image, error) {
	img, err := f.Resolve(name)
	if err == nil && platform != "" && platform != img.OS+"/"+img.Arch {
		err = fault.Say(fault.NotFound, "image with reference "+name+" was found but does not match the specified platform: wanted "+platform)
	}
	return img, err
}

func (f *imagesFake) Pull(context.Context, ask.PullImage, func(record.Progress)) (record.Image, error) {
	return record.Image{}, errFake
}

func (f *imagesFake) Push(context.Context, ask.PushImage, func(record.Progress)) ([]record.Pushed, error) {
	return nil, errFake
}

func (f *imagesFake) Login(context.Context, ask.RegistryAuth) (record.LoggedIn, error) {
	return record.LoggedIn{}, errFake
}

func (f *imagesFake) Load(context.Context, ask.LoadImages, io.Reader, func(record.Progress)) ([]record.Image, error) {
	return nil, errFake
}

func (f *imagesFake) LoadLayout(context.Context, ask.LoadImages, string, func(record.Progress)) ([]record.Image, error) {
	return nil, errFake
}

func (f *imagesFake) Import(context.Context, ask.ImportImage, io.Reader) (record.Image, error) {
	return record.Image{}, errFake
}

func (f *imagesFake) List() []record.Image     { return nil }
func (f *imagesFake) Tag(string, string) error { return errFake }
func (f *imagesFake) Verify(context.Context, bool, func(record.Progress)) (record.Verification, error) {
	return record.Verification{}, errFake
}
func (f *imagesFake) Remove(name string, _ bool, inUse func(string) []image.Use) ([]record.Removed, error) {
	if users := inUse(f.images[name].ID); len(users) > 0 {
		return nil, fault.Say(fault.Conflict, "in use by "+users[0].ID)
	}
	delete(f.images, name)
	return []record.Removed{{Untagged: name}}, nil
}

type layersFake rooms

func (f *layersFake) Way() (string, string)                             { return "idmapped", "" }
func (f *layersFake) Maps(idmap.Pair, string) (*snapshot.Mapped, error) { return nil, errFake }

func (f *layersFake) CheckWay(way string) error {
	if way == "copy" || way == "attached" {
		return fault.New(fault.Unsupported, "shift by", way, "it is a test", "")
	}
	return nil
}

func (f *layersFake) NewUpper() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.upperErr != nil {
		return "", f.upperErr
	}
	f.uppers["upper"] = true
	return "upper", nil
}

func (f *layersFake) DropUpper(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.uppers, name)
}

func (f *layersFake) DropCopies(idmap.Pair) error    { return nil }
func (f *layersFake) SweepCopies([]idmap.Pair) error { return nil }
func (f *layersFake) HasUpper(string) bool           { return true }

func (f *layersFake) SweepReplaced(func(string) bool) error { return nil }

func (f *layersFake) SweepUppers(map[string]bool) error                            { return nil }
func (f *layersFake) Open(string, []string, string) (*os.File, error)              { return nil, errFake }
func (f *layersFake) Rootfs(snapshot.Request) (snapshot.Root, error)               { return snapshot.Root{}, errFake }
func (f *layersFake) Size(context.Context, string, []string) (int64, int64, error) { return 0, 0, nil }

type documentsFake rooms

func (f *documentsFake) Put(key string, v any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.storeErr != nil {
		return f.storeErr
	}
	f.stored[key] = v
	return nil
}

func (f *documentsFake) PutSoon(key string, v any) error { return f.Put(key, v) }

func (f *documentsFake) Delete(key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.stored, key)
	return nil
}

func (f *documentsFake) Each(func(string, []byte) error) error { return nil }

type noMonitors struct{}

func (noMonitors) Take(context.Context) (*monitor.Monitor, error) { return nil, errFake }
func (noMonitors) Close()                                         {}

type noCgroups struct{}

func (noCgroups) Create(string, *specs.LinuxResources) ([]*os.File, error) { return nil, nil }
func (noCgroups) Show(string) (string, string)                             { return "", "" }
func (noCgroups) Enter(string) ([]*os.File, error)                         { return nil, nil }
func (noCgroups) Limit(string, *specs.LinuxResources) error                { return nil }
func (noCgroups) Remove(string) error                                      { return nil }
func (noCgroups) Kill(string) error                                        { return nil }
func (noCgroups) Pids(string) ([]int, error)                               { return nil, nil }
func (noCgroups) Stats(string) (record.Stats, error)                       { return record.Stats{}, nil }
func (noCgroups) OOMKills(string) (uint64, error)                          { return 0, nil }

type noProcesses struct{}

func (noProcesses) Top(int, []int, []string) (record.Top, error) { return record.Top{}, errFake }
func (noProcesses) Owner(int) (uint32, uint32, string, error)    { return 0, 0, "", errFake }
func (noProcesses) Root(int, time.Time) (*os.File, error)        { return nil, errFake }
func (noProcesses) Handle(int, time.Time) (*os.File, error)      { return nil, errFake }
func (noProcesses) Kill(int, time.Time) error                    { return errFake }

var errFake = fault.New(fault.Unavailable, "use", "room", "not in this test", "")

func (f *imagesFake) Save(context.Context, ask.SaveImages, io.Writer) error { return nil }
