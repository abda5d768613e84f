package docker

import (
	"bufio"
	"context"
	"errors"
	"io"
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
	"fief/internal/event"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// fake is an engine whose containers are plain processes of this machine. It
// keeps the order and the errors of the real one, and isolates nothing.
type fake struct {
	made       []record.Network
	mu         sync.Mutex
	containers map[string]*proc
	execs      map[string]*proc
	imgs       []record.Image
	pushed     []ask.PushImage
	asked      ask.Container // the last create
	bus        event.Bus
	stopDelay  time.Duration
	stopping   func()        // called by Stop before that delay, unless nil
	exitDelay  time.Duration // between the end of an exec session's streams and the news of its exit
}

// proc is a process with its streams, for a container or an exec session.
type proc struct {
	mu      sync.Mutex
	rec     record.Container
	exec    record.Exec
	env     []string
	pending []engine.Attach
	outs    []engine.Attach // attached for output
	waiters map[engine.WaitFor][]chan record.Exit
	log     []record.LogLine
	grown   chan struct{} // closed and replaced when log or state change
	cmd     *exec.Cmd
	tty     *os.File
	stdin   io.WriteCloser
}

func newFake() *fake {
	return &fake{containers: map[string]*proc{}, execs: map[string]*proc{}, imgs: []record.Image{testImage()}}
}

func testImage() record.Image {
	return record.Image{
		ID: "sha256:" + strings.Repeat("ab", 32), Manifest: "sha256:" + strings.Repeat("cd", 32),
		Names: []string{"docker.io/library/busybox:latest"}, Digests: []string{"docker.io/library/busybox@sha256:" + strings.Repeat("cd", 32)},
		Created: time.Now().Add(-48 * time.Hour), Size: 4 << 20, OS: "linux", Arch: "amd64",
		Config:  record.ImageConfig{Env: []string{"PATH=/usr/bin:/bin"}, Cmd: []string{"sh"}, Labels: map[string]string{"from": "test"}},
		Layers:  []record.Layer{{DiffID: "sha256:" + strings.Repeat("ef", 32), Size: 4 << 20}},
		History: []record.History{{Created: time.Now().Add(-48 * time.Hour), CreatedBy: "ADD rootfs"}, {CreatedBy: "CMD sh", EmptyLayer: true}},
	}
}

func (f *fake) tell(kind, action, id string, attrs map[string]string) {
	f.bus.Publish(record.Event{Type: kind, Action: action, ID: id, Attrs: attrs})
}

func (f *fake) tellOf(p *proc, action string) {
	f.tell("container", action, p.rec.ID, map[string]string{"image": p.rec.Image, "name": p.rec.Name})
}

func (f *fake) Events(ctx context.Context, span ask.Events, each func(record.Event) error) error {
	return f.bus.Listen(ctx, span, each)
}

func (f *fake) Info(context.Context) (record.Info, error) {
	return record.Info{
		ID: "d1", Name: "testhost", Version: "0.1", Kernel: "6.18", OS: "Debian", OSType: "linux", Arch: "x86_64", NCPU: 2, MemTotal: 1 << 30,
		Containers: len(f.containers), Images: len(f.imgs), DataRoot: "/var/lib/fief", StorageFS: "ext4", Shift: "idmapped",
		CgroupVersion: "2", CgroupDriver: "cgroupfs", Userns: true, Runtimes: []string{"fief"}, DefaultRuntime: "fief",
	}, nil
}

func (f *fake) find(name string) (*proc, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = strings.TrimPrefix(name, "/")
	for id, p := range f.containers {
		if p.record().Name == name || len(name) >= 3 && strings.HasPrefix(id, name) {
			return p, nil
		}
	}
	return nil, fault.Say(fault.NotFound, "No such container: "+name)
}

func (p *proc) record() record.Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec
}

func (f *fake) List(context.Context) (out []record.Container, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.containers {
		out = append(out, p.record())
	}
	return out, nil
}

func (f *fake) Inspect(_ context.Context, id string) (record.Container, error) {
	p, err := f.find(id)
	if err != nil {
		return record.Container{}, err
	}
	return p.record(), nil
}

func (f *fake) Create(ctx context.Context, a ask.Container) (engine.Created, error) {
	if err := f.knows(ctx, a); err != nil {
		return engine.Created{}, err
	}
	f.mu.Lock()
	f.asked = a
	f.mu.Unlock()
	img, err := f.Image(ctx, a.Image)
	if err != nil {
		return engine.Created{}, err
	}
	if p, err := f.find(a.Name); a.Name != "" && err == nil {
		return engine.Created{}, fault.Say(fault.Conflict, `Conflict. The container name "/`+a.Name+`" is already in use by container "`+p.rec.ID+`". You have to remove (or rename) that container to be able to reuse that name.`)
	}
	argv := slices.Concat(a.Entrypoint, a.Cmd)
	if len(argv) == 0 {
		argv = img.Config.Cmd
	}
	p := &proc{grown: make(chan struct{}), waiters: map[engine.WaitFor][]chan record.Exit{}, env: a.Env, rec: record.Container{
		ID: ref.NewID(), Name: a.Name, Created: time.Now(), Image: a.Image, ImageID: img.ID, Platform: "linux/amd64",
		Path: argv[0], Args: argv[1:], Cmd: argv, Env: a.Env, TTY: a.TTY, OpenStdin: a.OpenStdin, StdinOnce: a.StdinOnce,
		AttachStdin: a.AttachStdin, AttachStdout: a.AttachStdout, AttachStderr: a.AttachStderr,
		Labels: a.Labels, AutoRemove: a.AutoRemove, Network: string(a.Network), Net: a.Net, Log: record.Log{Driver: a.Log.Driver},
		PIDMode: a.PID.String(), IPCMode: a.IPC.String(), UTSMode: a.UTS.String(), CgroupnsMode: a.Cgroupns.String(),
		Privileged: a.Privileged, Annotations: a.Annotations, Identity: record.Identity{Asked: ask.UsernsText(a.Userns)},
		State: record.State{Status: record.Created},
	}}
	if p.rec.Name == "" {
		p.rec.Name = "n" + p.rec.ID[:8]
	}
	for _, m := range a.Mounts {
		p.rec.Mounts = append(p.rec.Mounts, record.Mount{Kind: string(m.Kind), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Recursive: m.Recursive})
	}
	f.mu.Lock()
	f.containers[p.rec.ID] = p
	f.mu.Unlock()
	f.tellOf(p, "create")
	warn := []string(nil)
	if a.NetworkDefault {
		warn = []string{"no network"}
	}
	return engine.Created{ID: p.rec.ID, Warnings: warn}, nil
}

// last is the last create.
func (f *fake) last() ask.Container {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func (f *fake) Rename(_ context.Context, id, name string) error {
	p, err := f.find(id)
	if err == nil {
		p.mu.Lock()
		p.rec.Name = name
		p.mu.Unlock()
	}
	return err
}

func (f *fake) Remove(_ context.Context, id string, how ask.Remove) error {
	p, err := f.find(id)
	if err != nil {
		return err
	}
	if p.record().State.Status == record.Running {
		if !how.Force {
			return fault.Say(fault.Conflict, `cannot remove container "`+p.rec.Name+`": container is running: stop the container before removing or force remove`)
		}
		exit := p.await(engine.NextExit)
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-exit
	}
	f.gone(p)
	return nil
}

func (f *fake) gone(p *proc) {
	f.mu.Lock()
	delete(f.containers, p.rec.ID)
	f.mu.Unlock()
	f.tellOf(p, "destroy")
	p.wake(engine.Gone, record.Exit{Code: p.record().State.ExitCode})
}

func (f *fake) Start(_ context.Context, id string) error {
	p, err := f.find(id)
	if err != nil {
		return err
	}
	if p.record().State.Status == record.Running {
		return fault.Say(fault.NotModified, "already running")
	}
	if err := p.run(f); err != nil {
		p.wake(engine.NextExit, record.Exit{Code: fault.ExitCodeOf(err)})
		if p.rec.AutoRemove {
			f.gone(p)
		}
		return err
	}
	f.tellOf(p, "start")
	return nil
}

func (f *fake) Stop(ctx context.Context, id string, how ask.Stop) error {
	if f.stopping != nil {
		f.stopping()
	}
	time.Sleep(f.stopDelay)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return f.Kill(ctx, id, "TERM")
}

func (f *fake) Restart(ctx context.Context, id string, how ask.Stop) error {
	if err := f.Kill(ctx, id, "KILL"); err != nil && !fault.Is(err, fault.Conflict) {
		return err
	}
	return f.Start(ctx, id)
}

func (f *fake) Kill(_ context.Context, id, signal string) error {
	p, err := f.find(id)
	if err != nil {
		return err
	}
	if p.record().State.Status != record.Running {
		return fault.Say(fault.Conflict, "cannot kill container: "+id+": container "+p.rec.ID+" is not running")
	}
	sig := unix.SignalNum("SIG" + strings.TrimPrefix(signal, "SIG"))
	if n, err := strconv.Atoi(signal); err == nil {
		sig = syscall.Signal(n)
	}
	if sig == 0 {
		return fault.Say(fault.Invalid, "Invalid signal: "+signal)
	}
	exit := p.await(engine.NextExit)
	syscall.Kill(-p.cmd.Process.Pid, sig)
	select {
	case <-exit:
	case <-time.After(time.Minute):
	}
	return nil
}

func (f *fake) Wait(_ context.Context, id string, when engine.WaitFor) (<-chan record.Exit, error) {
	p, err := f.find(id)
	if err != nil {
		return nil, err
	}
	return p.await(when), nil
}

func (p *proc) await(when engine.WaitFor) <-chan record.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch := make(chan record.Exit, 1)
	if when == engine.NotRunning && p.rec.State.Status != record.Running {
		ch <- record.Exit{Code: p.rec.State.ExitCode}
		return ch
	}
	p.waiters[when] = append(p.waiters[when], ch)
	return ch
}

func (p *proc) wake(when engine.WaitFor, exit record.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ch := range p.waiters[when] {
		ch <- exit
	}
	delete(p.waiters, when)
}

func dup(f *os.File) *os.File {
	if f == nil {
		return nil
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		panic(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

func (f *fake) Attach(_ context.Context, id string, at engine.Attach) error {
	p, err := f.find(id)
	if err != nil {
		return err
	}
	p.attach(at)
	return nil
}

func (p *proc) attach(at engine.Attach) {
	own := engine.Attach{Stdin: dup(at.Stdin), Stdout: dup(at.Stdout), Stderr: dup(at.Stderr), Alive: dup(at.Alive)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outs = append(p.outs, own)
	if p.rec.State.Status == record.Running {
		p.connect(own)
	} else {
		p.pending = append(p.pending, own)
	}
}

// connect starts what an attachment needs. Preconditions: p.mu held.
func (p *proc) connect(at engine.Attach) {
	if at.Stdin != nil && p.stdin != nil {
		to := p.stdin
		go func() {
			io.Copy(to, at.Stdin)
			at.Stdin.Close()
			if p.rec.StdinOnce && p.tty == nil {
				to.Close()
			}
		}()
	}
	if at.Alive != nil {
		go func() {
			io.Copy(io.Discard, at.Alive)
			p.detach(at)
		}()
	}
}

func (p *proc) attached() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.outs)
}

func (p *proc) detach(at engine.Attach) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outs = slices.DeleteFunc(p.outs, func(o engine.Attach) bool { return o.Alive == at.Alive })
	closeAttach(at)
}

func (p *proc) run(f *fake) error {
	path, err := exec.LookPath(p.rec.Path)
	if err != nil {
		e := fault.New(fault.Invalid, "start", "", `exec: "`+p.rec.Path+`": executable file not found in $PATH`, "")
		e.ExitCode = 127
		return e
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(path, p.rec.Args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // one group, to be killed as a container is
	p.cmd = cmd
	var outs [2]io.Reader
	if p.rec.TTY {
		master, slave, err := openPTY()
		if err != nil {
			return err
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		p.tty, p.stdin, outs[0] = master, master, master
		defer slave.Close()
	} else {
		outs[0], _ = cmd.StdoutPipe()
		outs[1], _ = cmd.StderrPipe()
		if p.rec.OpenStdin {
			p.stdin, _ = cmd.StdinPipe()
		}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.rec.State = record.State{Status: record.Running, PID: cmd.Process.Pid, StartedAt: time.Now()}
	p.exec.Started, p.exec.Running, p.exec.PID = true, true, cmd.Process.Pid
	for _, at := range p.pending {
		p.connect(at)
	}
	p.pending = nil
	go p.finish(f, outs)
	return nil
}

func (p *proc) finish(f *fake, outs [2]io.Reader) {
	var wg sync.WaitGroup
	for i, r := range outs {
		if r != nil {
			wg.Go(func() { p.copy(r, [...]string{"stdout", "stderr"}[i]) })
		}
	}
	wg.Wait()
	p.cmd.Wait()
	code := p.cmd.ProcessState.ExitCode()
	if ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	p.mu.Lock()
	for _, at := range p.outs {
		if at.Alive != nil {
			at.Alive.Write([]byte{engine.AttachEnded})
		}
		closeAttach(at)
	}
	p.outs = nil
	if p.tty != nil {
		p.tty.Close()
	}
	if p.rec.ID == "" {
		p.mu.Unlock()
		f.execEnded(p, code)
		return
	}
	p.rec.State.Status, p.rec.State.ExitCode, p.rec.State.PID, p.rec.State.FinishedAt = record.Exited, code, 0, time.Now()
	close(p.grown)
	p.grown = make(chan struct{})
	p.mu.Unlock()
	f.tell("container", "die", p.rec.ID, map[string]string{"image": p.rec.Image, "name": p.rec.Name, "exitCode": strconv.Itoa(code)})
	p.wake(engine.NextExit, record.Exit{Code: code})
	p.wake(engine.NotRunning, record.Exit{Code: code})
	if p.rec.AutoRemove {
		f.gone(p)
	}
}

// execEnded notes an exec session's exit, which may come later than the end of
// its streams.
func (f *fake) execEnded(p *proc, code int) {
	time.Sleep(f.exitDelay)
	p.mu.Lock()
	p.exec.Running, p.exec.ExitCode = false, code
	p.mu.Unlock()
	p.wake(engine.NextExit, record.Exit{Code: code})
}

func (p *proc) copy(r io.Reader, stream string) {
	br := bufio.NewReader(r)
	for {
		b, err := br.ReadBytes('\n')
		if p.rec.TTY && err == nil {
			b = append(b, readBuffered(br)...)
		}
		if len(b) > 0 {
			p.emit(record.LogLine{At: time.Now(), Stream: stream, Text: b})
		}
		if err != nil {
			return
		}
	}
}

func readBuffered(br *bufio.Reader) []byte {
	b := make([]byte, br.Buffered())
	io.ReadFull(br, b)
	return b
}

func (p *proc) emit(l record.LogLine) {
	p.mu.Lock()
	p.log = append(p.log, l)
	close(p.grown)
	p.grown = make(chan struct{})
	to := slices.Clone(p.outs)
	p.mu.Unlock()
	for _, at := range to {
		f := at.Stdout
		if l.Stream == "stderr" {
			f = at.Stderr
		}
		if f != nil {
			f.Write(l.Text)
		}
	}
}

func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

func (f *fake) Logs(ctx context.Context, id string, which ask.Logs, each func(record.LogLine) error) error {
	p, err := f.find(id)
	if err != nil {
		return err
	}
	p.mu.Lock()
	next := 0
	if which.Tail >= 0 {
		next = max(len(p.log)-which.Tail, 0)
	}
	p.mu.Unlock()
	for {
		p.mu.Lock()
		lines, over, grown := p.log[next:], p.rec.State.Status != record.Running, p.grown
		next = len(p.log)
		p.mu.Unlock()
		for _, l := range lines {
			if l.Stream == "stdout" && !which.Stdout || l.Stream == "stderr" && !which.Stderr || l.At.Before(which.Since) {
				continue
			}
			if !which.Until.IsZero() && l.At.After(which.Until) {
				return nil
			}
			if err := each(l); err != nil {
				return err
			}
		}
		if !which.Follow || over {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil
		}
	}
}

func (f *fake) Resize(_ context.Context, id string, rows, cols uint16) error {
	p, err := f.find(id)
	if err != nil {
		return err
	}
	return p.resize(rows, cols)
}

func (p *proc) resize(rows, cols uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tty == nil || p.rec.State.Status != record.Running {
		return fault.Say(fault.Conflict, "cannot resize a stopped container")
	}
	return unix.IoctlSetWinsize(int(p.tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
}

func (f *fake) Top(_ context.Context, id string, args []string) (record.Top, error) {
	p, err := f.find(id)
	if err != nil {
		return record.Top{}, err
	}
	return record.Top{Titles: []string{"PID", "CMD"}, Processes: [][]string{{strconv.Itoa(p.rec.State.PID), p.rec.Path + " " + strings.Join(args, " ")}}}, nil
}

func (f *fake) ExecCreate(_ context.Context, id string, x ask.Exec) (string, error) {
	c, err := f.find(id)
	if err != nil {
		return "", err
	}
	if c.record().State.Status != record.Running {
		return "", fault.Say(fault.Conflict, "container "+c.rec.ID+" is not running")
	}
	p := &proc{grown: make(chan struct{}), waiters: map[engine.WaitFor][]chan record.Exit{}, env: x.Env,
		rec: record.Container{Path: x.Cmd[0], Args: x.Cmd[1:], TTY: x.TTY, OpenStdin: x.OpenStdin, StdinOnce: true},
		exec: record.Exec{ID: ref.NewID(), Container: c.rec.ID, Path: x.Cmd[0], Args: x.Cmd[1:], TTY: x.TTY,
			OpenStdin: x.OpenStdin, AttachOut: x.AttachOut, AttachErr: x.AttachErr}}
	f.mu.Lock()
	f.execs[p.exec.ID] = p
	f.mu.Unlock()
	return p.exec.ID, nil
}

func (f *fake) session(id string) (*proc, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.execs[id]; p != nil {
		return p, nil
	}
	return nil, fault.Say(fault.NotFound, "No such exec instance: "+id)
}

func (f *fake) ExecStart(_ context.Context, id string, at engine.Attach) error {
	p, err := f.session(id)
	if err != nil {
		return err
	}
	p.attach(at)
	if err := p.run(f); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.exec.Started, p.exec.ExitCode = true, fault.ExitCodeOf(err)
		for _, at := range p.outs {
			closeAttach(at)
		}
		return err
	}
	return nil
}

func (f *fake) ExecWait(_ context.Context, id string) (<-chan record.Exit, error) {
	p, err := f.session(id)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ch := make(chan record.Exit, 1)
	if p.exec.Started && !p.exec.Running {
		ch <- record.Exit{Code: p.exec.ExitCode}
		return ch, nil
	}
	p.waiters[engine.NextExit] = append(p.waiters[engine.NextExit], ch)
	return ch, nil
}

func (f *fake) ExecInspect(_ context.Context, id string) (record.Exec, error) {
	p, err := f.session(id)
	if err != nil {
		return record.Exec{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exec, nil
}

func (f *fake) ExecResize(_ context.Context, id string, rows, cols uint16) error {
	p, err := f.session(id)
	if err != nil {
		return err
	}
	return p.resize(rows, cols)
}

func (f *fake) Images(context.Context) ([]record.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.imgs), nil
}

func (f *fake) Image(_ context.Context, name string) (record.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	full, err := normalName(name, "")
	for _, img := range f.imgs {
		if err == nil && slices.ContainsFunc(img.Names, func(n string) bool { return n == full.String() || n == full.String()+":latest" }) || img.ID == name {
			return img, nil
		}
	}
	return record.Image{}, fault.Say(fault.NotFound, "No such image: "+name)
}

func (f *fake) ImageFor(ctx context.Context, name, platform string) (record.Image, error) {
	img, err := f.Image(ctx, name)
	if err == nil && platform != "" && platform != img.OS+"/"+img.Arch {
		err = fault.Say(fault.NotFound, "image with reference "+name+" was found but does not match the specified platform: wanted "+platform+", actual: "+img.OS+"/"+img.Arch)
	}
	return img, err
}

func (f *fake) Tag(ctx context.Context, src, dst string) error {
	img, err := f.Image(ctx, src)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.imgs {
		if f.imgs[i].ID == img.ID {
			f.imgs[i].Names = append(f.imgs[i].Names, dst)
		}
	}
	return nil
}

func (f *fake) RemoveImage(ctx context.Context, name string, force bool) ([]record.Removed, error) {
	img, err := f.Image(ctx, name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.imgs = slices.DeleteFunc(f.imgs, func(i record.Image) bool { return i.ID == img.ID })
	return []record.Removed{{Untagged: img.Names[0]}, {Deleted: img.ID}}, nil
}

func (f *fake) Pull(ctx context.Context, p ask.PullImage, tell func(record.Progress)) (record.Image, error) {
	name, tag := untagged(p.Name), strings.TrimPrefix(p.Name, untagged(p.Name)+":")
	tell(record.Progress{ID: tag, Status: "Pulling from " + strings.TrimPrefix(name, "docker.io/")})
	if strings.Contains(p.Name, "absent") {
		return record.Image{}, fault.Say(fault.NotFound, "pull access denied for "+p.Name+", repository does not exist or may require 'docker login'")
	}
	if img, err := f.Image(ctx, p.Name); err == nil {
		tell(record.Progress{Status: "Status: Image is up to date for " + familiar(p.Name)})
		return img, nil
	}
	tell(record.Progress{ID: "0123456789ab", Status: "Pulling fs layer"})
	for i := range int64(5) {
		tell(record.Progress{ID: "0123456789ab", Status: "Downloading", Current: i << 20, Total: 4 << 20})
	}
	tell(record.Progress{ID: "0123456789ab", Status: "Pull complete"})
	if strings.Contains(p.Name, "broken") {
		return record.Image{}, fault.New(fault.Corrupt, "pull", p.Name, "digest does not match", "pull again")
	}
	img := testImage()
	img.ID, img.Names, img.Digests = "sha256:"+strings.Repeat("12", 32), []string{p.Name}, nil
	tell(record.Progress{Status: "Digest: " + img.Manifest})
	tell(record.Progress{Status: "Status: Downloaded newer image for " + familiar(p.Name)})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.imgs = append(f.imgs, img)
	return img, nil
}

func (f *fake) Load(_ context.Context, l ask.LoadImages, r io.Reader, tell func(record.Progress)) ([]record.Image, error) {
	b, err := io.ReadAll(r)
	if err != nil || string(b) != "an archive" {
		return nil, errors.Join(fault.Say(fault.Corrupt, "no archive"), err)
	}
	tell(record.Progress{Status: strings.Join(append([]string{"Loaded image: busybox:latest"}, l.Platforms...), " ")})
	return []record.Image{testImage()}, nil
}

func (f *fake) Import(_ context.Context, a ask.ImportImage, r io.Reader) (record.Image, error) {
	if a.Source != "" {
		return record.Image{}, fault.Say(fault.Unavailable, "fetching "+a.Source)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return record.Image{}, err
	}
	return testImage(), nil
}

func (f *fake) Save(ctx context.Context, s ask.SaveImages, w io.Writer) error {
	for _, name := range s.Names {
		if _, err := f.Image(ctx, name); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, "an archive"); err != nil || !slices.Contains(s.Platforms, "broken/off") {
		return err
	}
	return fault.New(fault.Corrupt, "save blob", "", "its content has another digest", "")
}

func (f *fake) UpdateRestart(_ context.Context, id string, p ask.RestartPolicy) error {
	return p.Check()
}
