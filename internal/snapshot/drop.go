package snapshot

import (
	"errors"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/words/failpoint"
)

// dropper deletes directory trees in the background. A tree is first moved
// below dropped/, which is atomic: whatever is half deleted is there and
// nowhere else, and is deleted after the next start.
type dropper struct {
	dir  *os.File // dropped/
	log  *slog.Logger
	done chan struct{}

	mu    sync.Mutex // never held across a system call
	wake  *sync.Cond // with mu: queue or ended has changed
	queue []drop
	ended bool
	busy  bool // a drop is under way
}

// drop is a tree to delete: name below from. try, when set, may find another
// use for it.
type drop struct {
	from *os.File
	name string
	try  func() bool
}

func newDropper(root *os.File, log *slog.Logger) (*dropper, error) {
	dir, err := at.EnsureDir(root, "dropped")
	if err != nil {
		return nil, err
	}
	d := &dropper{dir: dir, log: log, done: make(chan struct{})}
	d.wake = sync.NewCond(&d.mu)
	left, err := at.Names(dir)
	if err != nil {
		dir.Close()
		return nil, err
	}
	for _, n := range left {
		d.add(dir, n)
	}
	go d.run()
	return d, nil
}

// add deletes name below from in the background; it never blocks. from must
// stay open until the store is closed.
func (d *dropper) add(from *os.File, name string) { d.push(drop{from: from, name: name}) }

func (d *dropper) push(next drop) {
	d.mu.Lock()
	d.queue = append(d.queue, next)
	d.mu.Unlock()
	d.wake.Broadcast()
}

// take moves name away from from at once and deletes it in the background.
func (d *dropper) take(from *os.File, name string) error {
	moved := token()
	err := at.Rename(from, name, d.dir, moved)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	failpoint.Hit("tree-dropped")
	d.add(d.dir, moved)
	return nil
}

func (d *dropper) run() {
	defer close(d.done)
	for {
		next, ok := d.next()
		if !ok {
			return
		}
		if err := d.remove(next); err != nil {
			d.log.Warn("cannot delete", "name", next.name, "error", err)
		}
	}
}

func (d *dropper) next() (drop, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = false
	d.wake.Broadcast()
	for len(d.queue) == 0 && !d.ended {
		d.wake.Wait()
	}
	if d.ended {
		return drop{}, false
	}
	next := d.queue[0]
	d.queue = d.queue[1:]
	d.busy = true
	return next, true
}

func (d *dropper) remove(next drop) error {
	if next.try != nil && next.try() {
		return nil
	}
	name := next.name
	if next.from != d.dir {
		name = token()
		err := at.Rename(next.from, next.name, d.dir, name)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	failpoint.Hit("tree-deleting")
	return at.RemoveTree(d.dir, name)
}

// settle waits until nothing is left to delete.
func (d *dropper) settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.queue) > 0 || d.busy {
		d.wake.Wait()
	}
}

// close ends the worker after the deletion that is under way.
func (d *dropper) close() {
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	d.wake.Broadcast()
	<-d.done
	d.dir.Close()
}
