package native

import (
	"context"
	"io"

	"fief/internal/engine"
	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// Engine is what the native door needs: the sum of the small interfaces that
// its files use.
type Engine interface {
	runner
	execer
	attacher
	lifecycle
	reader
	imager
	identifier
	committer
	copier
	limiter
	volumes
}

// runner makes containers.
type runner interface {
	Create(ctx context.Context, c ask.Container) (engine.Created, error)
	Run(ctx context.Context, c ask.Container, a engine.Attach, trace bool) (engine.Started, error)
	Wait(ctx context.Context, id string, f engine.WaitFor) (<-chan record.Exit, error)
	Kill(ctx context.Context, id, signal string) error
	Resize(ctx context.Context, id string, rows, cols uint16) error
}

// execer starts further processes in them.
type execer interface {
	ExecCreate(ctx context.Context, id string, e ask.Exec) (string, error)
	ExecStart(ctx context.Context, execID string, a engine.Attach) error
	ExecWait(ctx context.Context, execID string) (<-chan record.Exit, error)
	ExecKill(ctx context.Context, execID, signal string) error
	ExecResize(ctx context.Context, execID string, rows, cols uint16) error
}

// attacher connects clients with containers that exist.
type attacher interface {
	Attach(ctx context.Context, id string, a engine.Attach) error
	Start(ctx context.Context, id string) error
}

// lifecycle changes containers.
type lifecycle interface {
	Stop(ctx context.Context, id string, s ask.Stop) error
	Restart(ctx context.Context, id string, s ask.Stop) error
	Remove(ctx context.Context, id string, how ask.Remove) error
	Rename(ctx context.Context, id, name string) error
}

// reader looks at containers and the engine.
type reader interface {
	List(ctx context.Context) ([]record.Container, error)
	Inspect(ctx context.Context, id string) (record.Container, error)
	Logs(ctx context.Context, id string, l ask.Logs, each func(record.LogLine) error) error
	Top(ctx context.Context, id string, psArgs []string) (record.Top, error)
	Plan(ctx context.Context, c ask.Container) (string, error)
	Info(ctx context.Context) (record.Info, error)
	Events(ctx context.Context, span ask.Events, each func(record.Event) error) error
}

// imager is everything about images.
type imager interface {
	Pull(ctx context.Context, p ask.PullImage, progress func(record.Progress)) (record.Image, error)
	Push(ctx context.Context, p ask.PushImage, progress func(record.Progress)) ([]record.Pushed, error)
	Login(ctx context.Context, a ask.RegistryAuth) (record.LoggedIn, error)
	Load(ctx context.Context, l ask.LoadImages, r io.Reader, progress func(record.Progress)) ([]record.Image, error)
	LoadLayout(ctx context.Context, l ask.LoadImages, dir string, progress func(record.Progress)) ([]record.Image, error)
	Import(ctx context.Context, i ask.ImportImage, r io.Reader) (record.Image, error)
	Save(ctx context.Context, s ask.SaveImages, w io.Writer) error
	Images(ctx context.Context) ([]record.Image, error)
	ImageFor(ctx context.Context, name, platform string) (record.Image, error)
	Tag(ctx context.Context, src, dst string) error
	RemoveImage(ctx context.Context, name string, force bool) ([]record.Removed, error)
}

// checker is an engine that checks the health of containers and restarts them.
type checker interface {
	UpdateRestart(ctx context.Context, id string, p ask.RestartPolicy) error
	Healthcheck(ctx context.Context, id string) (record.HealthResult, error)
}

// sizer is an engine that can tell what containers take on disk.
type sizer interface {
	Size(ctx context.Context, id string) (upper, whole int64, err error)
}

// identifier tells whose the host's ids are, and gives containers others.
type identifier interface {
	IDs(ctx context.Context) (record.IDs, error)
	Who(ctx context.Context, w ask.Who) (record.Who, error)
	Update(ctx context.Context, name string, u ask.Userns, caller *ask.Caller) (record.Container, error)
}
