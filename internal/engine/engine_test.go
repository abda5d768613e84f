package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

var busybox = record.Image{
	ID: "sha256:" + strings.Repeat("a", 64), OS: "linux", Arch: "amd64", Names: []string{"busybox"},
	Config: record.ImageConfig{
		Entrypoint: []string{"/entry"}, Cmd: []string{"sh"}, Env: []string{"PATH=/bin", "A=image"}, WorkDir: "/srv", User: "app",
		Labels: map[string]string{"from": "image"}, StopSignal: "SIGINT",
	},
	Layers: []record.Layer{{DiffID: "sha256:one"}, {DiffID: "sha256:two"}},
}

func wanted(edit func(*ask.Container)) ask.Container {
	a := ask.Container{Image: "busybox", Userns: ask.UsernsDefault{}, Network: ask.NetNone}
	if edit != nil {
		edit(&a)
	}
	return a
}

func TestMergeCommand(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*ask.Container)
		want string
	}{
		{"image's", nil, "/entry sh"},
		{"command", func(a *ask.Container) { a.Cmd = []string{"id", "-u"} }, "/entry id -u"},
		{"entrypoint drops the command", func(a *ask.Container) { a.ReplaceEntry, a.Entrypoint = true, []string{"echo"} }, "echo"},
		{"both", func(a *ask.Container) {
			a.ReplaceEntry, a.Entrypoint, a.Cmd = true, []string{"echo"}, []string{"hi"}
		}, "echo hi"},
		{"no entrypoint", func(a *ask.Container) { a.ReplaceEntry, a.Cmd = true, []string{"id"} }, "id"},
		{"nothing", func(a *ask.Container) { a.ReplaceEntry = true }, ""},
	} {
		rec, err := merge(wanted(c.edit), busybox)
		got := strings.TrimSpace(rec.Path + " " + strings.Join(rec.Args, " "))
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

func TestMergeDefaults(t *testing.T) {
	rec, err := merge(wanted(func(a *ask.Container) {
		a.Env, a.Labels, a.User = []string{"A=user", "B=2", "PATH"}, map[string]string{"mine": "1"}, "0:0"
	}), busybox)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rec.Env, []string{"A=user", "B=2"}) {
		t.Errorf("environment %v", rec.Env)
	}
	if rec.Labels["from"] != "image" || rec.Labels["mine"] != "1" {
		t.Errorf("labels %v", rec.Labels)
	}
	if rec.User != "0:0" || rec.WorkDir != "/srv" || rec.StopSignal != "SIGINT" {
		t.Errorf("user %q, directory %q, signal %q", rec.User, rec.WorkDir, rec.StopSignal)
	}
	if busybox.Config.Env[0] != "PATH=/bin" || len(busybox.Config.Labels) != 1 {
		t.Error("the image was changed")
	}
}

// A layer whose root is opaque hides all below, which overlayfs does not see.
func TestOpaqueRootCutsTheStack(t *testing.T) {
	img := busybox
	img.Layers = []record.Layer{{DiffID: "a"}, {DiffID: "b", Opaque: true}, {DiffID: "c"}}
	rec, err := merge(wanted(nil), img)
	if err != nil || !slices.Equal(rec.Rootfs.Layers, []string{"b", "c"}) {
		t.Errorf("layers %v, %v", rec.Rootfs.Layers, err)
	}
}

func TestMountsAreChecked(t *testing.T) {
	for _, c := range []struct {
		mounts []ask.Mount
		want   fault.Class
	}{
		{[]ask.Mount{{Kind: ask.Bind, Source: "/a", Target: "/x"}, {Kind: ask.Tmpfs, Target: "/x/"}}, fault.Invalid},
		{[]ask.Mount{{Kind: ask.Bind, Source: "/a", Target: "x"}}, fault.Invalid},
		{[]ask.Mount{{Kind: ask.Bind, Source: "/a", Target: "/x/.."}}, fault.Invalid},
		{[]ask.Mount{{Kind: ask.Volume, Source: "v", Target: "/proc/x"}}, fault.Invalid},
		{[]ask.Mount{{Kind: ask.Image, Source: "no-such", Target: "/x"}}, fault.Invalid},
	} {
		e := newRooms().engine(t)
		a := wanted(func(a *ask.Container) { a.Mounts = c.mounts })
		rec := record.Container{ID: "id"}
		if err := e.mounted(&rec, a, busybox, &undo{}); !fault.Is(err, c.want) {
			t.Errorf("%+v: %v", c.mounts, err)
		}
	}
}

// What was asked for is at its place, over what other containers have; a path that
// the image names gets a volume only where nothing is.
func TestMountsInOrder(t *testing.T) {
	e := newRooms().engine(t)
	donor := &container{id: "donor", rec: record.Container{ID: "donor", Name: "donor", Mounts: []record.Mount{
		{Kind: "bind", Source: "/d", Target: "/bound"}, {Kind: "volume", Name: "theirs", Target: "/cache"}, {Kind: "tmpfs", Target: "/mem"},
	}}}
	e.table.add(donor)
	img := busybox
	img.Config.Volumes = []string{"/cache", "/own/", "/bound"}
	a := wanted(func(a *ask.Container) {
		a.VolumesFrom = []ask.VolumesFrom{{Container: "donor", ReadOnly: true}}
		a.Mounts = []ask.Mount{{Kind: ask.Volume, Source: "mine", Target: "/bound"}, {Kind: ask.Volume, Target: "/cache"}}
	})
	rec := record.Container{ID: "id"}
	if err := e.mounted(&rec, a, img, &undo{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range rec.Mounts {
		name := m.Name
		if len(name) == 64 {
			name = "anonymous"
		}
		got = append(got, fmt.Sprint(m.Target, " ", name, " ", m.ReadOnly))
	}
	if want := []string{"/cache theirs true", "/bound mine false", "/own anonymous false"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Whatever fails, nothing is left: no lease, no writable layer, no name, no
// directory.
func TestFailedCreateLeavesNothing(t *testing.T) {
	full := fault.New(fault.Exhausted, "write", "", "no space left on device", "")
	for name, c := range map[string]struct {
		edit func(*ask.Container)
		room func(*rooms)
		want fault.Class
	}{
		"no image":      {edit: func(a *ask.Container) { a.Image = "nothing" }, want: fault.NotFound},
		"bad name":      {edit: func(a *ask.Container) { a.Name = "-x" }, want: fault.Invalid},
		"no command":    {edit: func(a *ask.Container) { a.ReplaceEntry = true }, want: fault.Invalid},
		"map without 0": {edit: func(a *ask.Container) { a.Userns = ask.UsernsMap{Pair: pairFrom(t, 1)} }, want: fault.Invalid},
		"host network":  {edit: func(a *ask.Container) { a.Network = ask.NetHost }, want: fault.Invalid},
		"no runtime":    {edit: func(a *ask.Container) { a.Runtime = "nosuch" }, want: fault.Invalid},
		"restart":       {edit: func(a *ask.Container) { a.Restart.Name = "sometimes" }, want: fault.Invalid},
		"log driver":    {edit: func(a *ask.Container) { a.Log.Driver = "odd" }, want: fault.Invalid},
		"other shift":   {edit: func(a *ask.Container) { a.Shift = "copy" }, want: fault.Unsupported},
		"no upper":      {room: func(r *rooms) { r.upperErr = full }, want: fault.Exhausted},
		"full disk":     {room: func(r *rooms) { r.storeErr = full }, want: fault.Exhausted},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRooms()
			r.images["busybox"] = busybox
			if c.room != nil {
				c.room(r)
			}
			e := r.engine(t)
			a := wanted(c.edit)
			if a.Name == "" {
				a.Name = "taken"
			}
			if _, err := e.Create(context.Background(), a); !fault.Is(err, c.want) {
				t.Fatalf("got %v, want class %v", err, c.want)
			}
			if n := r.left(); n != 0 {
				t.Errorf("%d things are still held: %+v", n, r)
			}
			if err := e.table.reserve("taken", "id"); err != nil {
				t.Errorf("the name is still taken: %v", err)
			}
			if left, _ := os.ReadDir(filepath.Join(e.cfg.ExecRoot, "c")); len(left) > 0 {
				t.Errorf("run directories are left: %v", left)
			}
		})
	}
}

func pairFrom(t *testing.T, in idmap.Inside) idmap.Pair {
	t.Helper()
	m, err := idmap.New(idmap.Span{In: in, Out: 100000, N: 10})
	if err != nil {
		t.Fatal(err)
	}
	return idmap.Pair{UID: m, GID: m}
}

func TestCreateFindRenameRemove(t *testing.T) {
	r := newRooms()
	r.images["busybox"] = busybox
	e, ctx := r.engine(t), context.Background()
	made, err := e.Create(ctx, wanted(func(a *ask.Container) { a.Name = "web" }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Create(ctx, wanted(func(a *ask.Container) { a.Name = "web" })); !fault.Is(err, fault.Conflict) ||
		!strings.Contains(err.Error(), `"/web" is already in use by container "`+made.ID) {
		t.Errorf("a second of the name: %v", err)
	}
	for _, name := range []string{made.ID, made.ID[:12], "web", "/web"} {
		if c, err := e.Inspect(ctx, name); err != nil || c.ID != made.ID {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := e.Rename(ctx, "web", "api"); err != nil {
		t.Error(err)
	}
	if _, err := e.Inspect(ctx, "web"); !fault.Is(err, fault.NotFound) {
		t.Errorf("the old name: %v", err)
	}
	if _, err := e.RemoveImage(ctx, "busybox", false); !fault.Is(err, fault.Conflict) {
		t.Errorf("the image of a container was removed: %v", err)
	}
	gone, err := e.Wait(ctx, "api", Gone)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Remove(ctx, "api", ask.Remove{}); err != nil {
		t.Error(err)
	}
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Error("who waits for the removal is not told")
	}
	if n := r.left(); n != 0 {
		t.Errorf("%d things are still held", n)
	}
}

// A start that fails tells those who wait (docker/cli#5053) and removes a
// container that is removed at its end.
func TestFailedStart(t *testing.T) {
	r := newRooms()
	r.images["busybox"] = busybox
	e, ctx := r.engine(t), context.Background()
	for _, auto := range []bool{false, true} {
		made, err := e.Create(ctx, wanted(func(a *ask.Container) { a.AutoRemove = auto }))
		if err != nil {
			t.Fatal(err)
		}
		when := NextExit
		if auto {
			when = Gone
		}
		exit, err := e.Wait(ctx, made.ID, when)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Start(ctx, made.ID); err == nil {
			t.Fatal("a start without rooms")
		}
		select {
		case x := <-exit:
			if x.Code != exitNoStart {
				t.Errorf("exit code %d", x.Code)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("auto-remove %v: who waits is not told", auto)
		}
		if c, err := e.Inspect(ctx, made.ID); auto != fault.Is(err, fault.NotFound) || !auto && c.State.Error == "" {
			t.Errorf("auto-remove %v: %+v, %v", auto, c.State, err)
		}
	}
}

// A run whose client cannot be attached leaves nothing either.
func TestRunWithoutAttachmentLeavesNothing(t *testing.T) {
	r := newRooms()
	r.images["busybox"] = busybox
	e := r.engine(t)
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if _, err := e.Run(context.Background(), wanted(nil), Attach{Stdout: closed}, false); err == nil {
		t.Fatal("attached to a closed file")
	}
	if n := r.left(); n != 0 {
		t.Errorf("%d things are still held", n)
	}
}
