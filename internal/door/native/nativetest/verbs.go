package nativetest

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fief/internal/engine"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// Wait waits for a container.
func (e *Engine) Wait(_ context.Context, id string, f engine.WaitFor) (<-chan record.Exit, error) {
	out := make(chan record.Exit, 1)
	err := e.locked(id, func(b *box) error {
		e.await(b, out, f == engine.NotRunning)
		return nil
	})
	return out, err
}

func (e *Engine) await(b *box, out chan record.Exit, now bool) {
	if b.ended || now && b.rec.State.Status == record.Created {
		out <- b.exit
		close(out)
		return
	}
	b.waits = append(b.waits, out)
}

// Kill signals a container.
func (e *Engine) Kill(_ context.Context, id, signal string) error {
	return e.locked(id, func(b *box) error { return b.kill(signal) })
}

func (b *box) kill(signal string) error {
	if b.cmd == nil || b.ended {
		return fault.Say(fault.Conflict, "cannot kill container: "+b.rec.Name+": container "+b.id+" is not running")
	}
	n, err := strconv.Atoi(signal)
	if err != nil {
		n = map[string]int{"KILL": 9, "TERM": 15, "INT": 2, "HUP": 1}[strings.TrimPrefix(signal, "SIG")]
	}
	return syscall.Kill(-b.cmd.Process.Pid, syscall.Signal(n))
}

// Resize notes a terminal's size.
func (e *Engine) Resize(_ context.Context, _ string, rows, cols uint16) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sizes = append(e.sizes, [2]uint16{rows, cols})
	return nil
}

// ExecCreate makes an exec session.
func (e *Engine) ExecCreate(_ context.Context, id string, x ask.Exec) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b, err := e.find(id)
	if err != nil {
		return "", err
	}
	if b.rec.State.Status != record.Running {
		return "", fault.Say(fault.Conflict, "container "+b.id+" is not running")
	}
	s := &box{id: ref.NewID(), grew: make(chan struct{}), ask: ask.Container{Cmd: x.Cmd, Env: x.Env, TTY: x.TTY}}
	e.execs[s.id] = s
	return s.id, nil
}

// ExecStart starts an exec session's process.
func (e *Engine) ExecStart(_ context.Context, id string, a engine.Attach) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.execs[id]
	s.stream = engine.Attach{Stdin: dup(a.Stdin), Stdout: dup(a.Stdout), Stderr: dup(a.Stderr), Alive: dup(a.Alive)}
	err := e.spawn(s, s.ask.Cmd, s.ask.Env, s.ask.TTY)
	if err != nil {
		s.release()
	}
	return err
}

// ExecWait waits for an exec session.
func (e *Engine) ExecWait(_ context.Context, id string) (<-chan record.Exit, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.execs[id]
	if !ok {
		return nil, fault.Say(fault.NotFound, "No such exec instance: "+id)
	}
	out := make(chan record.Exit, 1)
	e.await(s, out, false)
	return out, nil
}

// ExecKill signals an exec session.
func (e *Engine) ExecKill(_ context.Context, id, signal string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.execs[id].kill(signal)
}

// ExecResize notes a terminal's size.
func (e *Engine) ExecResize(ctx context.Context, id string, rows, cols uint16) error {
	return e.Resize(ctx, id, rows, cols)
}

// Stop ends a container.
func (e *Engine) Stop(ctx context.Context, id string, s ask.Stop) error {
	exit, err := e.Wait(ctx, id, engine.NotRunning)
	if err != nil {
		return err
	}
	signal := s.Signal
	if signal == "" {
		signal = "TERM"
	}
	if err := e.Kill(ctx, id, signal); err != nil {
		return err
	}
	<-exit
	return nil
}

// Restart ends and starts a container.
func (e *Engine) Restart(ctx context.Context, id string, s ask.Stop) error {
	if err := e.Stop(ctx, id, s); err != nil {
		return err
	}
	return e.Start(ctx, id)
}

// Remove removes a container.
func (e *Engine) Remove(ctx context.Context, id string, how ask.Remove) error {
	e.mu.Lock()
	b, err := e.find(id)
	running := err == nil && b.rec.State.Status == record.Running
	e.mu.Unlock()
	switch {
	case err != nil:
		return err
	case running && !how.Force:
		return fault.Say(fault.Conflict, `cannot remove container "`+b.rec.Name+`": container is running: stop the container before removing or force remove`)
	case running:
		if err := e.Stop(ctx, id, ask.Stop{Signal: "KILL"}); err != nil {
			return err
		}
	}
	return e.locked(b.id, func(b *box) error { e.drop(b); return nil })
}

// Rename renames a container.
func (e *Engine) Rename(_ context.Context, id, name string) error {
	return e.locked(id, func(b *box) error { b.rec.Name = name; return nil })
}

// List lists containers.
func (e *Engine) List(context.Context) ([]record.Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []record.Container
	for _, b := range e.boxes {
		all = append(all, b.rec)
	}
	return all, nil
}

// Inspect shows a container.
func (e *Engine) Inspect(_ context.Context, id string) (c record.Container, err error) {
	err = e.locked(id, func(b *box) error { c = b.rec; return nil })
	return c, err
}

// Size measures a container.
func (e *Engine) Size(context.Context, string) (upper, whole int64, err error) {
	return 1200, 4_261_200, nil
}

// Logs reads a container's log.
func (e *Engine) Logs(ctx context.Context, id string, l ask.Logs, each func(record.LogLine) error) error {
	next := 0
	first := true
	for {
		var lines []record.LogLine
		var grew chan struct{}
		ended := false
		err := e.locked(id, func(b *box) error {
			lines, grew, ended = slices.Clone(b.lines[next:]), b.grew, b.ended
			return nil
		})
		if err != nil {
			return err
		}
		next += len(lines)
		if first && l.Tail >= 0 && len(lines) > l.Tail {
			lines = lines[len(lines)-l.Tail:]
		}
		first = false
		for _, line := range lines {
			if line.At.Before(l.Since) {
				continue
			}
			if err := each(line); err != nil {
				return err
			}
		}
		if !l.Follow || ended {
			return nil
		}
		select {
		case <-grew:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Top lists processes.
func (e *Engine) Top(_ context.Context, id string, args []string) (t record.Top, err error) {
	err = e.locked(id, func(b *box) error {
		t = record.Top{Titles: []string{"PID", "CMD"}, Processes: [][]string{{"42", strings.Join(args, " ")}}}
		return nil
	})
	return t, err
}

// Plan prints a plan.
func (e *Engine) Plan(_ context.Context, c ask.Container) (string, error) {
	if _, ok := e.image(c.Image); !ok {
		return "", fault.Say(fault.NotFound, "No such image: "+c.Image+":latest")
	}
	return "overlay low/0 → merged\nexec " + strings.Join(c.Cmd, " ") + "\n", nil
}

// Info describes the engine.
func (e *Engine) Info(context.Context) (record.Info, error) {
	return record.Info{ID: "test", Version: "1.2.3", OSType: "linux", Arch: "x86_64", Kernel: "6.18", Userns: true, MemTotal: 4 << 30}, nil
}

// Events tells of one event, then waits.
func (e *Engine) Events(ctx context.Context, _ ask.Events, each func(record.Event) error) error {
	at := time.Date(2024, 1, 2, 3, 4, 5, 6, time.UTC)
	if err := each(record.Event{Type: "container", Action: "start", ID: "abc", Attrs: map[string]string{"name": "web", "image": "busybox"}, At: at}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// Pull finds an image in Far.
func (e *Engine) Pull(_ context.Context, p ask.PullImage, progress func(record.Progress)) (record.Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, i := range e.Far {
		if slices.Contains(i.Names, "docker.io/library/"+p.Name+":latest") || slices.Contains(i.Names, "docker.io/library/"+p.Name) {
			progress(record.Progress{ID: "latest", Status: "Pulling from library/" + p.Name})
			progress(record.Progress{ID: "aaaa", Status: "Downloading", Current: 1, Total: 2})
			progress(record.Progress{ID: "aaaa", Status: "Downloading", Current: 2, Total: 2})
			progress(record.Progress{ID: "aaaa", Status: "Pull complete"})
			e.Known = append(e.Known, i)
			return i, nil
		}
	}
	return record.Image{}, fault.Say(fault.NotFound, "pull access denied for "+p.Name+", repository does not exist or may require 'docker login'")
}

// Load reads an archive: its text is the image's name.
func (e *Engine) Load(_ context.Context, l ask.LoadImages, r io.Reader, tell func(record.Progress)) ([]record.Image, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return e.LoadLayout(context.Background(), l, strings.TrimSpace(string(b)), tell)
}

// LoadLayout makes an image of that name.
func (e *Engine) LoadLayout(_ context.Context, l ask.LoadImages, name string, tell func(record.Progress)) ([]record.Image, error) {
	if tell != nil {
		tell(record.Progress{Status: "Loaded image: " + strings.TrimPrefix(name, "docker.io/library/")})
	}
	if len(l.Platforms) > 0 {
		name += "-for-" + strings.ReplaceAll(strings.Join(l.Platforms, "-"), "/", "-")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	i := Image(name, e.Now())
	e.Known = append(e.Known, i)
	return []record.Image{i}, nil
}

// Import makes an image.
func (e *Engine) Import(ctx context.Context, i ask.ImportImage, _ io.Reader) (record.Image, error) {
	made, err := e.LoadLayout(ctx, ask.LoadImages{}, i.Name, nil)
	return made[0], err
}

// Images lists images.
func (e *Engine) Images(context.Context) ([]record.Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.Known), nil
}

// Image shows an image.
func (e *Engine) Image(_ context.Context, name string) (record.Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, ok := e.image(name)
	if !ok {
		return i, fault.Say(fault.NotFound, "No such image: "+name)
	}
	return i, nil
}

// ImageFor shows an image of one platform.
func (e *Engine) ImageFor(ctx context.Context, name, platform string) (record.Image, error) {
	i, err := e.Image(ctx, name)
	if err == nil && platform != "" && platform != i.OS+"/"+i.Arch {
		return i, fault.Say(fault.NotFound, "image with reference "+name+" was found but does not match the specified platform: wanted "+platform+", actual: "+i.OS+"/"+i.Arch)
	}
	return i, err
}

// Tag adds a name.
func (e *Engine) Tag(_ context.Context, src, dst string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, ok := e.image(src)
	if !ok {
		return fault.Say(fault.NotFound, "No such image: "+src)
	}
	i.Names = []string{"docker.io/library/" + dst}
	e.Known = append(e.Known, i)
	return nil
}

// RemoveImage removes an image.
func (e *Engine) RemoveImage(ctx context.Context, name string, _ bool) ([]record.Removed, error) {
	i, err := e.Image(ctx, name)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Known = slices.DeleteFunc(e.Known, func(o record.Image) bool { return o.Names[0] == i.Names[0] })
	return []record.Removed{{Untagged: i.Names[0]}, {Deleted: i.ID}}, nil
}
