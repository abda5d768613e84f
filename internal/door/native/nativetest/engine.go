// Package nativetest has an engine for tests of the native door and of the
// command line. Its containers are processes of the host, started as the asks
// say, with their output copied and logged as a monitor does.
package nativetest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/engine"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// Engine is the engine. Its fields may be changed before it is used.
type Engine struct {
	Known []record.Image // the images that are there
	Far   []record.Image // the images that Pull finds
	Now   func() time.Time

	mu      sync.Mutex // guards everything below and the boxes
	boxes   []*box
	execs   map[string]*box
	asks    []ask.Container
	volumes []record.Volume
	sizes   [][2]uint16
}

// box is a container or an exec session.
type box struct {
	rec    record.Container
	ask    ask.Container
	id     string
	cmd    *exec.Cmd
	lines  []record.LogLine
	waits  []chan record.Exit
	exit   record.Exit
	ended  bool
	stream engine.Attach
	grew   chan struct{} // closed and replaced whenever something changes
}

// New returns an engine that knows the image "busybox".
func New() *Engine {
	made := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	return &Engine{
		Now:   time.Now,
		execs: map[string]*box{},
		Known: []record.Image{Image("docker.io/library/busybox:latest", made)},
		Far:   []record.Image{Image("docker.io/library/alpine:latest", made)},
	}
}

// Image makes an image record.
func Image(name string, made time.Time) record.Image {
	sum := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	return record.Image{
		ID: sum, Manifest: sum, Names: []string{name}, Created: made, Size: 4_260_000, OS: "linux", Arch: "amd64",
		Config: record.ImageConfig{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}}, Layers: []record.Layer{{DiffID: sum, Size: 4_260_000}},
		History: []record.History{{Created: made, CreatedBy: "ADD rootfs.tar / # a rather long instruction that is cut"}, {Created: made, CreatedBy: `CMD ["sh"]`, EmptyLayer: true}},
	}
}

// Close kills every process that is left.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range e.boxes {
		_ = b.kill("KILL") // one that has ended refuses
	}
}

// Asked returns the containers that were asked for.
func (e *Engine) Asked() []ask.Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.asks)
}

// Sizes returns the terminal sizes that were set.
func (e *Engine) Sizes() [][2]uint16 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.sizes)
}

func (e *Engine) find(name string) (*box, error) {
	for _, b := range e.boxes {
		if b.rec.Name == name || b.id == name || len(name) >= 4 && strings.HasPrefix(b.id, name) {
			return b, nil
		}
	}
	return nil, fault.Say(fault.NotFound, "No such container: "+name)
}

func (e *Engine) locked(name string, do func(b *box) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	b, err := e.find(name)
	if err != nil {
		return err
	}
	return do(b)
}

// Create makes a container.
func (e *Engine) Create(_ context.Context, c ask.Container) (engine.Created, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asks = append(e.asks, c)
	image, ok := e.image(c.Image)
	if !ok {
		return engine.Created{}, fault.Say(fault.NotFound, "No such image: "+c.Image+":latest")
	}
	b := &box{id: ref.NewID(), ask: c, grew: make(chan struct{})}
	if c.Name == "" {
		c.Name = "name_" + strconv.Itoa(len(e.boxes))
	}
	if other, err := e.find(c.Name); err == nil {
		return engine.Created{}, fault.Say(fault.Conflict, `Conflict. The container name "/`+c.Name+`" is already in use by container "`+other.id+
			`". You have to remove (or rename) that container to be able to reuse that name.`)
	}
	words := append(slices.Clone(c.Entrypoint), c.Cmd...)
	if len(words) == 0 {
		words = image.Config.Cmd
	}
	b.rec = record.Container{
		ID: b.id, Name: c.Name, Created: e.Now(), Image: c.Image, ImageID: image.ID, Path: words[0], Args: words[1:], Labels: c.Labels,
		TTY: c.TTY, OpenStdin: c.OpenStdin, Network: string(c.Network), State: record.State{Status: record.Created}, Env: c.Env,
		Mounts: []record.Mount{}, Identity: record.Identity{Mode: "auto"},
	}
	e.boxes = append(e.boxes, b)
	made := engine.Created{ID: b.id}
	if c.NetworkDefault {
		made.Warnings = []string{"no network was named: the container has none but loopback"}
	}
	return made, nil
}

func (e *Engine) image(name string) (record.Image, bool) {
	for _, i := range e.Known {
		for _, n := range i.Names {
			if n == name || n == "docker.io/library/"+name || n == "docker.io/library/"+name+":latest" || i.ID == name {
				return i, true
			}
		}
	}
	return record.Image{}, false
}

// Run creates, attaches and starts.
func (e *Engine) Run(ctx context.Context, c ask.Container, a engine.Attach, trace bool) (engine.Started, error) {
	made, err := e.Create(ctx, c)
	if err != nil {
		return engine.Started{}, err
	}
	if err := e.Attach(ctx, made.ID, a); err != nil {
		return engine.Started{}, err
	}
	exit, err := e.Wait(ctx, made.ID, engine.NextExit)
	if err != nil {
		return engine.Started{}, err
	}
	if err := e.Start(ctx, made.ID); err != nil {
		return engine.Started{}, err
	}
	s := engine.Started{Warnings: made.Warnings, Exit: exit}
	s.Container.ID = made.ID
	if trace {
		s.Trace = []engine.Stage{{Name: "image", At: 20 * time.Microsecond}, {Name: "lease", At: 70 * time.Microsecond}}
	}
	return s, nil
}

// Attach keeps duplicates of the streams for the start, or connects them with
// a process that runs.
func (e *Engine) Attach(_ context.Context, id string, a engine.Attach) error {
	return e.locked(id, func(b *box) error {
		b.stream = engine.Attach{Stdin: dup(a.Stdin), Stdout: dup(a.Stdout), Stderr: dup(a.Stderr), Alive: dup(a.Alive)}
		return nil
	})
}

func dup(f *os.File) *os.File {
	if f == nil {
		return nil
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// Start starts a container's process.
func (e *Engine) Start(_ context.Context, id string) error {
	return e.locked(id, func(b *box) error {
		words := append([]string{b.rec.Path}, b.rec.Args...)
		if err := e.spawn(b, words, b.rec.Env, b.ask.TTY); err != nil {
			b.release()
			e.drop(b)
			return err
		}
		b.rec.State = record.State{Status: record.Running, PID: b.cmd.Process.Pid, StartedAt: e.Now()}
		return nil
	})
}

// spawn starts the process. Preconditions: e.mu held.
func (e *Engine) spawn(b *box, words, env []string, tty bool) error {
	path, err := exec.LookPath(words[0])
	if errors.Is(err, fs.ErrPermission) {
		f := fault.Say(fault.Invalid, `exec: "`+words[0]+`": permission denied`)
		f.ExitCode = 126
		return f
	}
	if err != nil {
		f := fault.Say(fault.Invalid, `exec: "`+words[0]+`": executable file not found in $PATH`)
		f.ExitCode = 127
		return f
	}
	b.cmd = exec.Command(path, words[1:]...)
	b.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	b.cmd.Stdin = fileOrNil(b.stream.Stdin)
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var copies sync.WaitGroup
	if tty {
		b.cmd.Stdout, b.cmd.Stderr = b.stream.Stdout, b.stream.Stdout
	} else {
		out, err := b.cmd.StdoutPipe()
		if err != nil {
			return err
		}
		errs, err := b.cmd.StderrPipe()
		if err != nil {
			return err
		}
		copies.Go(func() { e.copy(b, "stdout", out, b.stream.Stdout) })
		copies.Go(func() { e.copy(b, "stderr", errs, b.stream.Stderr) })
	}
	if err := b.cmd.Start(); err != nil {
		return err
	}
	go func() {
		copies.Wait()
		_ = b.cmd.Wait()
		e.end(b)
	}()
	return nil
}

func fileOrNil(f *os.File) io.Reader {
	if f == nil {
		return nil
	}
	return f
}

func (e *Engine) copy(b *box, stream string, from io.Reader, to *os.File) {
	r := bufio.NewReader(from)
	for {
		text, err := r.ReadBytes('\n')
		if len(text) > 0 {
			if to != nil {
				_, _ = to.Write(text)
			}
			e.mu.Lock()
			b.lines = append(b.lines, record.LogLine{At: time.Now(), Stream: stream, Text: text})
			b.changed()
			e.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

func (b *box) changed() {
	close(b.grew)
	b.grew = make(chan struct{})
}

// end records the exit. Its streams close after it, as a slow monitor's.
func (e *Engine) end(b *box) {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := b.cmd.ProcessState.Sys().(syscall.WaitStatus)
	b.exit = record.Exit{Code: st.ExitStatus(), At: e.Now()}
	if st.Signaled() {
		b.exit.Code = 128 + int(st.Signal())
	}
	b.ended = true
	b.rec.State.Status, b.rec.State.PID, b.rec.State.ExitCode, b.rec.State.FinishedAt = record.Exited, 0, b.exit.Code, e.Now()
	for _, w := range b.waits {
		w <- b.exit
		close(w)
	}
	b.waits = nil
	b.changed()
	b.release()
	if b.ask.AutoRemove {
		e.drop(b)
	}
}

func (b *box) release() {
	for _, f := range []*os.File{b.stream.Stdin, b.stream.Stdout, b.stream.Stderr, b.stream.Alive} {
		if f != nil {
			f.Close()
		}
	}
	b.stream = engine.Attach{}
}

func (e *Engine) drop(b *box) {
	e.boxes = slices.DeleteFunc(e.boxes, func(o *box) bool { return o == b })
}
