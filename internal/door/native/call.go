package native

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"fief/internal/door/native/wire"
	"fief/internal/engine"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// call is one request being answered. Its context ends when the client goes.
type call struct {
	out
	ctx     context.Context
	engine  Engine
	peer    *unix.Ucred // who is at the other end
	request []byte
	body    []byte     // of the request, without the verb
	files   []*os.File // received with the request; closed after the handler
	target  target
}

// target is the process that Signal and Resize messages are for. What comes
// before the process runs is kept and delivered then.
type target struct {
	mu      sync.Mutex // guards the rest; never held while the engine is called
	signal  func(ctx context.Context, name string) error
	resize  func(ctx context.Context, rows, cols uint16) error
	signals []string
	size    []byte

	interrupt func() // what ends the work before there is a process; nil: nothing
}

// serve answers the requests of one connection, one after another, until the
// client goes or sends nonsense.
func serve(ctx context.Context, c *net.UnixConn, e Engine, who *unix.Ucred) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A daemon that stops must not wait for clients to hang up.
	defer context.AfterFunc(ctx, func() { c.Close() })()
	calls := make(chan *call)
	defer func() {
		c.Close()
		for k := range calls {
			closeAll(k.files)
		}
	}()
	go func() {
		defer close(calls)
		defer cancel()
		read(ctx, wire.NewReader(socket{c}), func(m wire.Message) *call {
			return &call{out: out{sock: socket{c}}, ctx: ctx, engine: e, peer: who, request: m.Body, files: files(m.Files)}
		}, calls)
	}()
	for k := range calls {
		err := k.answer()
		closeAll(k.files)
		if err != nil {
			return
		}
	}
}

// read makes calls of requests and delivers the other messages to the newest,
// until the connection ends.
func read(ctx context.Context, r *wire.Reader, begin func(wire.Message) *call, calls chan<- *call) {
	var newest *call
	for {
		m, err := r.Next()
		if err != nil {
			return
		}
		if m.Kind != wire.Request {
			m.Close()
			if newest != nil {
				newest.target.deliver(ctx, m)
			}
			continue
		}
		newest = begin(m)
		select {
		case calls <- newest:
		case <-ctx.Done():
			closeAll(newest.files)
			return
		}
	}
}

// interruptible says what SIGINT and SIGTERM do besides while there is no process yet;
// nil: nothing.
func (t *target) interruptible(interrupt func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.interrupt = interrupt
}

// deliver hands a Signal or Resize to the process, or keeps it until there is
// one. Failures are not reported: the process may have ended meanwhile.
func (t *target) deliver(ctx context.Context, m wire.Message) {
	switch m.Kind {
	case wire.Signal:
		if len(m.Body) != 1 {
			return
		}
		name := strconv.Itoa(int(m.Body[0]))
		t.mu.Lock()
		send := t.signal
		if send == nil {
			t.signals = append(t.signals, name)
		}
		if n := m.Body[0]; send == nil && t.interrupt != nil && (n == byte(unix.SIGINT) || n == byte(unix.SIGTERM)) {
			t.interrupt()
		}
		t.mu.Unlock()
		if send != nil {
			_ = send(ctx, name)
		}
	case wire.Resize:
		rows, cols, ok := wire.DecodeSize(m.Body)
		t.mu.Lock()
		resize := t.resize
		if resize == nil {
			t.size = m.Body
		}
		t.mu.Unlock()
		if ok && resize != nil {
			_ = resize(ctx, rows, cols)
		}
	}
}

// ready names the process and delivers what came before it ran.
func (t *target) ready(ctx context.Context, signal func(context.Context, string) error, resize func(context.Context, uint16, uint16) error) {
	t.mu.Lock()
	t.signal, t.resize = signal, resize
	signals, size := t.signals, t.size
	t.signals, t.size = nil, nil
	t.mu.Unlock()
	for _, s := range signals {
		_ = signal(ctx, s)
	}
	if rows, cols, ok := wire.DecodeSize(size); ok {
		_ = resize(ctx, rows, cols)
	}
}

// answered is the result of a handler that wrote the last message itself.
type answered struct{}

// answer carries out one request and writes its last message. Only a client
// that cannot be written to is an error.
func (k *call) answer() error {
	verb, body, err := wire.DecodeRequest(k.request)
	if err != nil {
		return k.send(wire.Failure, wire.EncodeFailure(err))
	}
	k.body = body
	result, err := k.dispatch(verb)
	if k.ctx.Err() != nil {
		// The client has gone, or this daemon ends: a client that only hears
		// the connection close asks the next daemon for its container.
		return k.ctx.Err()
	}
	if err != nil {
		return k.send(wire.Failure, wire.EncodeFailure(err))
	}
	if _, said := result.(answered); said {
		return nil
	}
	if result == nil {
		return k.send(wire.Result, nil)
	}
	return k.sendJSON(wire.Result, result)
}

func (k *call) dispatch(v wire.Verb) (any, error) {
	switch v {
	case wire.RunArgs, wire.ExecArgs, wire.Run, wire.Exec, wire.Attach, wire.StartAttached, wire.Wait, wire.WaitExec:
		return k.processes(v)
	case wire.Pull, wire.Load, wire.LoadLayout, wire.Import, wire.Save, wire.Images, wire.Image, wire.Tag, wire.RemoveImage:
		return k.images(v)
	case wire.List, wire.Inspect, wire.Size, wire.Logs, wire.Top, wire.Plan, wire.Info, wire.Events:
		return k.reads(v)
	case wire.Push, wire.Login:
		return k.registry(v)
	case wire.IDs, wire.Who, wire.Update:
		return k.identities(v)
	case wire.Commit, wire.Export, wire.Changes:
		return k.written(v)
	case wire.Healthcheck:
		return k.healthcheck()
	case wire.UpdateRestart:
		return k.updateRestart()
	case wire.Verify:
		return k.verify()
	case wire.Stats, wire.UpdateResources, wire.Pause, wire.Unpause:
		return k.resources(v)
	case wire.VolumeCreate, wire.VolumeList, wire.VolumeInspect, wire.VolumeRemove, wire.VolumeSize:
		return k.volumes(v)
	case wire.Networks, wire.Network, wire.CreateNetwork, wire.RemoveNetwork, wire.PruneNetworks, wire.ConnectNetwork, wire.DisconnectNetwork:
		return k.networks(v)
	case wire.StatPath, wire.ReadPath, wire.WritePath:
		return k.archives(v)
	}
	return k.changes(v)
}

// decode reads the request's JSON body.
func decode[T any](k *call) (T, error) {
	var v T
	if err := json.Unmarshal(k.body, &v); err != nil {
		return v, fault.Wrap(fault.Invalid, "read request", "", err, "fief and fiefd may be of different builds")
	}
	return v, nil
}

// unpack returns the ask that a client sent, with who sent it.
func (k *call) unpack(packed wire.Container) (ask.Container, error) {
	c, err := packed.Unpack()
	c.Caller = callerOf(k.peer, c.Caller)
	return c, err
}

// lasting is the context of work that a client's going must not undo half way.
func (k *call) lasting() context.Context { return context.WithoutCancel(k.ctx) }

// watched is lasting for a start that the client waits for: it is told of long work,
// and ends it by going or by a signal that comes while the work is being done. over
// must be called when the start is.
func (k *call) watched() (ctx context.Context, over func()) {
	while, end := context.WithCancel(k.ctx)
	k.target.interruptible(end)
	return engine.Watched(k.lasting(), while, k.progress), func() {
		k.target.interruptible(nil)
		end()
	}
}

func (k *call) progress(p record.Progress) { _ = k.sendJSON(wire.Progress, p) }

func (k *call) warn(warnings []string) error {
	for _, w := range warnings {
		if err := k.send(wire.Warning, []byte(w)); err != nil {
			return err
		}
	}
	return nil
}
