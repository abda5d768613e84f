package engine

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"fief/internal/monitor"
	"fief/internal/snapshot"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// container is a container's record with what is alive about it.
type container struct {
	id     string        // never changes
	claim  chan struct{} // held by the verb that is changing the container; may be held across I/O
	copies copies        // of its files, which use the root of its running processes
	hear   func()        // after a restart of the daemon: returns once its monitor has answered, asked by the first who calls; nil: nothing is open

	mu      sync.Mutex                     // order: after Engine.table; never held across a call out
	rec     record.Container               // guarded by mu
	mon     *monitor.Monitor               // guarded by mu; nil unless running
	checks  *monitor.Monitor               // guarded by mu; the one that checks health; nil: mon, or none
	mapped  *snapshot.Mapped               // guarded by mu; descriptors kept for the next start, or nil
	pending []Attach                       // guarded by mu; attached before the start, with files of our own
	waiters map[WaitFor][]chan record.Exit // guarded by mu
	gone    bool                           // guarded by mu

	restarting restarting    // guarded by mu
	gap        chan struct{} // guarded by mu; closed when the restart by a verb is over that is under way; nil: none is

	standing sync.Mutex         // order: before mu; held while a stand-in is found or sent away
	standIns []*monitor.Monitor // guarded by mu; beside mon: see carrier
}

// take claims the container for one verb.
func (c *container) take(ctx context.Context) error {
	select {
	case c.claim <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fault.Wrap(fault.Canceled, "wait for container", ref.Short(c.id), ctx.Err(), "")
	}
}

// claim finds a container and claims it; the caller frees it.
func (e *Engine) claim(ctx context.Context, name string) (*container, error) {
	c, err := e.table.find(name)
	if err != nil {
		return nil, err
	}
	return c, c.take(ctx)
}

func (c *container) free() { <-c.claim }

// record returns a copy of the record.
func (c *container) record() record.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

// between notes that the container is stopped only to be started again, until over
// is called.
func (c *container) between() (over func()) {
	gap := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gap = gap
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.gap = nil
		close(gap)
	}
}

// settled is record, but between the halves of a restart it waits for the second,
// as dockerd's lock has it: who is told of the end and asks what has become of
// the container (compose's up) takes one that is not running for finished.
func (c *container) settled(ctx context.Context) record.Container {
	c.mu.Lock()
	rec, gap := c.rec, c.gap
	c.mu.Unlock()
	if gap == nil || rec.State.Up() {
		return rec
	}
	select {
	case <-gap:
	case <-ctx.Done():
	}
	return c.record()
}

// change edits the record under its lock and returns a copy.
func (c *container) change(edit func(*record.Container)) record.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	edit(&c.rec)
	return c.rec
}

// monitor returns the monitor of a running container, or the conflict that
// docker clients expect.
func (c *container) monitor(verb string) (*monitor.Monitor, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mon != nil && c.rec.State.Status == record.Running {
		return c.mon, nil
	}
	return nil, notRunning(verb, c.rec)
}

func notRunning(verb string, c record.Container) error {
	if c.State.Status == record.Restarting {
		return fault.Say(fault.Conflict, "Container "+c.ID+" is restarting, wait until the container is running")
	}
	if verb == "" {
		return fault.Say(fault.Conflict, "container "+c.ID+" is not running")
	}
	return fault.Say(fault.Conflict, "cannot "+verb+" container: "+c.Name+": container "+c.ID+" is not running")
}

// table finds containers by id, prefix and name.
type table struct {
	mu     sync.RWMutex
	byID   map[string]*container // guarded by mu
	byName map[string]string     // guarded by mu; a name is reserved before its container exists
	execs  map[string]*session   // guarded by mu
	late   []farewell            // guarded by mu; the last lateKept removals, oldest first
}

// farewell is how a removed container had ended.
type farewell struct {
	id   string
	exit record.Exit
}

// lateKept bounds how many removed containers are remembered.
const lateKept = 256

// remember notes the end of a container that is being removed.
func (t *table) remember(id string, exit record.Exit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.late = append(t.late, farewell{id, exit})
	if len(t.late) > lateKept {
		t.late = append(t.late[:0], t.late[len(t.late)-lateKept:]...)
	}
}

// lately returns how a container ended that was removed not long ago.
func (t *table) lately(id string) (record.Exit, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i := len(t.late) - 1; i >= 0; i-- {
		if t.late[i].id == id {
			return t.late[i].exit, true
		}
	}
	return record.Exit{}, false
}

func (t *table) init() {
	t.byID = map[string]*container{}
	t.byName = map[string]string{}
	t.execs = map[string]*session{}
}

// reserve takes a name for an id, or fails in Docker's words.
func (t *table) reserve(name, id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if holder, taken := t.byName[name]; taken {
		f := fault.Say(fault.Conflict, `Conflict. The container name "/`+name+`" is already in use by container "`+holder+
			`". You have to remove (or rename) that container to be able to reuse that name.`)
		return f
	}
	t.byName[name] = id
	return nil
}

// reserved reports whether an id has a name: that of a container which exists,
// is being made or is being removed.
func (t *table) reserved(id string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, holder := range t.byName {
		if holder == id {
			return true
		}
	}
	return false
}

func (t *table) release(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byName, name)
}

func (t *table) add(c *container) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byID[c.id] = c
}

// drop forgets a container and its sessions; its name stays reserved until
// release.
func (t *table) drop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, id)
	for key, s := range t.execs {
		if s.rec.Container == id {
			delete(t.execs, key)
		}
	}
}

// find looks a container up by full id, name or unique id prefix, in that
// order, as Docker does. One that this daemon has found running is returned once
// its monitor has been heard, or has had time for it (answerWait).
func (t *table) find(name string) (*container, error) {
	c, err := t.lookUp(name)
	if err == nil {
		c.heard()
	}
	return c, err
}

func (t *table) lookUp(name string) (*container, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if c := t.byID[name]; c != nil {
		return c, nil
	}
	if c := t.byID[t.byName[strings.TrimPrefix(name, "/")]]; c != nil {
		return c, nil
	}
	var found *container
	for id, c := range t.byID {
		if name == "" || !strings.HasPrefix(id, name) {
			continue
		}
		if found != nil {
			return nil, fault.Say(fault.Invalid, "multiple IDs found with provided prefix: "+name)
		}
		found = c
	}
	if found == nil {
		return nil, fault.Say(fault.NotFound, "No such container: "+name)
	}
	return found, nil
}

// known returns the container with this full id, nil when there is none.
func (t *table) known(id string) *container {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byID[id]
}

// all returns every container, newest first.
func (t *table) all() []*container {
	t.mu.RLock()
	list := make([]*container, 0, len(t.byID))
	for _, c := range t.byID {
		list = append(list, c)
	}
	t.mu.RUnlock()
	slices.SortFunc(list, func(a, b *container) int { return cmp.Compare(a.id, b.id) })
	return list
}
