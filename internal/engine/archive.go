package engine

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"sync"

	"fief/internal/image"
	"fief/internal/snapshot"
	"fief/internal/snapshot/within"
	"fief/internal/spec"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// place is a container's root directory, held for a copy.
type place struct {
	c      *container
	rec    record.Container
	pair   idmap.Pair
	root   *os.File
	live   bool // the container runs: root is what its processes see, mounts included
	hidden []hidden
	ctx    context.Context
	done   func() // lets go of all of it
}

// place holds the root directory of a container. One that runs is not kept from
// anything, but a start that follows ends the copy: the kernel does not allow one
// upper in two mounts (overlayfs.rst, "Sharing and copying layers"). One that
// does not run is mounted for the copy and stays claimed until done: volumes and
// binds are not mounted then.
func (e *Engine) place(ctx context.Context, name string) (*place, error) {
	c, err := e.table.find(name)
	if err != nil {
		return nil, err
	}
	if p, err := e.livePlace(ctx, c); p != nil || err != nil {
		return p, err
	}
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	p, err := e.livePlace(ctx, c) // it may have been started while others had the claim
	if p != nil || err != nil {
		c.free()
		return p, err
	}
	if p, err = e.stillPlace(ctx, c); err != nil {
		c.free()
	}
	return p, err
}

// livePlace is nil when the container does not run.
func (e *Engine) livePlace(ctx context.Context, c *container) (*place, error) {
	rec := c.record()
	if rec.State.Status != record.Running {
		return nil, nil
	}
	pair, err := pairOf(rec.Identity)
	if err != nil {
		return nil, err
	}
	if err := refuseSandboxed(rec, "copy from or to container"); err != nil {
		return nil, err
	}
	ctx, done := c.copies.begin(ctx)
	root, err := e.rooms.Processes.Root(rec.State.PID, rec.State.StartedAt)
	if err != nil {
		done()
		if c.record().State.Status != record.Running { // it has just ended
			return nil, nil
		}
		return nil, err
	}
	return &place{c: c, rec: rec, pair: pair, root: root, live: true, ctx: ctx, done: func() { root.Close(); done() }}, nil
}

// stillPlace mounts the root file system of a container that does not run.
// Preconditions: the claim is held; done frees it.
func (e *Engine) stillPlace(ctx context.Context, c *container) (*place, error) {
	rec := c.record()
	if status := rec.State.Status; status == record.Removing || status == record.Dead {
		return nil, fault.Say(fault.Conflict, "container "+c.id+" is marked for removal")
	}
	c.copies.end()
	pair, err := pairOf(rec.Identity)
	if err != nil {
		return nil, err
	}
	way, _ := e.wayOf(rec, pair)
	mapped, err := e.rooms.Layers.Maps(pair, way)
	if err != nil {
		return nil, err
	}
	defer func() { go mapped.Close() }() // waits for the kernel, as in prepareRoot
	root, err := e.rooms.Layers.Rootfs(snapshot.Request{
		Mapped: mapped, Layers: rec.Rootfs.Layers, Host: rec.Rootfs.Host, Upper: rec.Rootfs.Upper,
	}) // not volatile: an upper that once was cannot be mounted again (overlayfs.rst, "Volatile mount")
	if err != nil {
		return nil, err
	}
	covered := e.cover(root.FD, rec, pair)
	done := func() { root.Close(); e.freeVolumes(rec, coverer(rec)); c.free() }
	return &place{c: c, rec: rec, pair: pair, root: root.FD, hidden: covered, ctx: ctx, done: done}, nil
}

// StatPath says what a path in a container is. NotFound in docker's words.
func (e *Engine) StatPath(ctx context.Context, name, unsafePath string) (record.PathStat, error) {
	p, err := e.place(ctx, name)
	if err != nil {
		return record.PathStat{}, err
	}
	defer p.done()
	if err := p.reach(unsafePath); err != nil {
		return record.PathStat{}, err
	}
	source, err := within.Open(p.root, p.pair, unsafePath)
	if err != nil {
		return record.PathStat{}, p.explain(unsafePath, err)
	}
	defer source.Close()
	return source.Stat(), nil
}

// ReadPath returns a path in a container as a tar, and what it is. The caller
// reads to the end or to an error, which is a fault, and closes it.
func (e *Engine) ReadPath(ctx context.Context, name, unsafePath string) (record.PathStat, io.ReadCloser, error) {
	p, err := e.place(ctx, name)
	if err != nil {
		return record.PathStat{}, nil, err
	}
	if err := p.reach(unsafePath); err != nil {
		p.done()
		return record.PathStat{}, nil, err
	}
	source, err := within.Open(p.root, p.pair, unsafePath)
	if err != nil {
		p.done()
		return record.PathStat{}, nil, p.explain(unsafePath, err)
	}
	e.tell("archive-path", p.rec, nil)
	// The pipe lets a copy end whose reader does not read.
	out, in := io.Pipe()
	stop := context.AfterFunc(p.ctx, func() { in.CloseWithError(p.canceled()) })
	go func() {
		defer p.done()
		defer source.Close()
		defer stop()
		in.CloseWithError(source.Tar(p.ctx, in))
	}()
	return source.Stat(), out, nil
}

// WritePath unpacks a tar, plain or compressed, in a directory of a container.
// After an error a part of it may be there.
func (e *Engine) WritePath(ctx context.Context, name string, a ask.CopyIn, r io.Reader) error {
	p, err := e.place(ctx, name)
	if err != nil {
		return err
	}
	defer p.done()
	if p.rec.ReadOnly && !p.live {
		return fault.Say(fault.Denied, "container rootfs is marked read-only")
	}
	if err := p.reach(a.Path); err != nil {
		return err
	}
	to := within.Target{Root: p.root, Pair: p.pair, Path: a.Path, KeepKinds: a.KeepKinds, ReadOnly: p.rec.ReadOnly}
	if a.AsUser && p.rec.User != "" {
		uid, gid, _, _, err := spec.LookupUser(p.root, p.rec.User, p.rec.Groups)
		if err != nil {
			return err
		}
		to.Owner = &within.Owner{UID: idmap.Inside(uid), GID: idmap.Inside(gid)}
	}
	// The pipe lets a copy end whose writer does not write.
	out, in := io.Pipe()
	defer out.Close()
	stop := context.AfterFunc(p.ctx, func() { in.CloseWithError(p.canceled()) })
	defer stop()
	go func() {
		_, err := io.Copy(in, r)
		if err != nil {
			err = fault.Wrap(fault.Canceled, "receive", "archive", err, "")
		}
		in.CloseWithError(err)
	}()
	plain, err := image.Plain(out)
	if err != nil {
		return err
	}
	defer plain.Close()
	if err := within.Extract(p.ctx, to, plain); err != nil {
		return p.explain(a.Path, err)
	}
	_, _ = io.Copy(io.Discard, out) // what follows the archive, so that its sender is not cut off
	e.tell("extract-to-dir", p.rec, nil)
	return nil
}

func (p *place) canceled() error {
	return fault.Wrap(fault.Canceled, "copy files of container", p.rec.Name, errors.Join(context.Cause(p.ctx)), "")
}

// explain puts a path that is not there into docker's words.
func (p *place) explain(unsafePath string, err error) error {
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	return fault.Say(fault.NotFound, "Could not find the file "+path.Clean("/"+unsafePath)+" in container "+p.rec.Name)
}

// copies are the copies that use the root of a container's running processes.
// Its zero value is ready.
type copies struct {
	mu   sync.Mutex // leaf
	ends map[*context.CancelFunc]chan struct{}
}

// begin returns a context that ends with the copy's right to the root; done says
// that nothing of the root is used any more.
func (s *copies) begin(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends == nil {
		s.ends = map[*context.CancelFunc]chan struct{}{}
	}
	s.ends[&cancel] = over
	return ctx, func() {
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.ends, &cancel)
		close(over)
	}
}

// end cancels all copies and waits for them.
func (s *copies) end() {
	s.mu.Lock()
	var wait []chan struct{}
	for cancel, over := range s.ends {
		(*cancel)()
		wait = append(wait, over)
	}
	s.mu.Unlock()
	for _, over := range wait {
		<-over
	}
}
