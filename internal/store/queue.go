package store

import (
	"sync"
	"time"

	"fief/internal/words/fault"
)

// linger is how long a value given to PutSoon may wait for others to share its
// commit. A Put, a Flush or a full queue ends the wait.
const linger = 50 * time.Millisecond

// full is the number of waiting operations that ends the wait.
const full = 1024

// op is one change; a nil value deletes.
type op struct {
	bucket, key string
	value       []byte
}

// place names a value.
type place struct{ bucket, key string }

// batch is what one call wants committed together. done is nil for PutSoon;
// seq is the number of the last PutSoon up to then, its own included.
type batch struct {
	ops  []op
	seq  uint64
	done chan error
}

// waiting is a value that PutSoon took and that is not yet on disk.
type waiting struct {
	value []byte
	seq   uint64
}

// queue gathers changes and commits them in order, on a goroutine of its own.
type queue struct {
	commit func([]op) error
	wake   chan struct{}
	ended  chan struct{}

	mu      sync.Mutex // never held while committing
	batches []batch
	retry   []batch // values of PutSoon whose commit failed, in order
	urgent  bool
	closed  bool
	seq     uint64            // number of the last change taken
	soon    map[place]waiting // what readers see before it is committed
}

func newQueue(commit func([]op) error) *queue {
	q := &queue{
		commit: commit,
		wake:   make(chan struct{}, 1),
		ended:  make(chan struct{}),
		soon:   map[place]waiting{},
	}
	go q.run()
	return q
}

// now commits ops with whatever else is waiting and returns when they are on
// disk, or an error when none of them is.
func (q *queue) now(ops ...op) error {
	done := make(chan error, 1)
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return closedFault()
	}
	q.batches = append(q.batches, batch{ops, q.seq, done})
	q.urgent = true
	q.mu.Unlock()
	q.nudge()
	return <-done
}

// later takes a change to be committed soon.
func (q *queue) later(o op) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return closedFault()
	}
	q.seq++
	q.soon[place{o.bucket, o.key}] = waiting{o.value, q.seq}
	q.batches = append(q.batches, batch{[]op{o}, q.seq, nil})
	q.urgent = q.urgent || len(q.batches) >= full
	q.nudge()
	return nil
}

func (q *queue) flush() error { return q.now() }

func (q *queue) stop() error {
	err := q.now()
	q.mu.Lock()
	again := q.closed
	q.closed = true
	q.mu.Unlock()
	if again {
		return nil
	}
	q.nudge()
	<-q.ended
	return err
}

func (q *queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func closedFault() error {
	return fault.New(fault.Unavailable, "write state file", "", "it is closed", "")
}

func (q *queue) run() {
	defer close(q.ended)
	for {
		<-q.wake
		q.pause()
		taken, closed := q.take()
		q.write(taken)
		if closed {
			return
		}
	}
}

// pause waits for company, unless somebody is waiting for the commit.
func (q *queue) pause() {
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for {
		q.mu.Lock()
		hurry := q.urgent || q.closed || len(q.batches) == 0
		q.mu.Unlock()
		if hurry {
			return
		}
		select {
		case <-q.wake:
		case <-timer.C:
			return
		}
	}
}

func (q *queue) take() (taken []batch, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken = append(q.retryable(), q.batches...)
	q.batches, q.retry, q.urgent = nil, nil, false
	return taken, q.closed
}

// retryable returns the failed values of PutSoon that nothing has replaced
// since. Preconditions: q.mu held.
func (q *queue) retryable() (again []batch) {
	for _, b := range q.retry {
		if q.soon[place{b.ops[0].bucket, b.ops[0].key}].seq == b.seq {
			again = append(again, b)
		}
	}
	return again
}

// write commits what was taken, at once if that works, else one call after the
// other: a deletion on a full disk must not fail for the sake of the values
// that it shared a commit with. Callers whose changes failed are told and
// their changes forgotten; values of PutSoon wait for the next commit.
func (q *queue) write(taken []batch) {
	var ops []op
	for _, b := range taken {
		ops = append(ops, b.ops...)
	}
	if len(taken) > 1 && q.apply(ops) == nil {
		for _, b := range taken {
			q.settle(b, nil)
		}
		return
	}
	var failed error
	for _, b := range taken {
		err := q.apply(b.ops)
		if b.done == nil && err != nil {
			failed = err
		}
		if len(b.ops) == 0 && err == nil {
			err = failed // a flush hears of what was before it
		}
		q.settle(b, err)
	}
}

func (q *queue) apply(ops []op) error {
	if len(ops) == 0 {
		return nil
	}
	return q.commit(ops)
}

// settle makes readers look into the file for what b has written there, puts a
// failed PutSoon back unless something newer has replaced it, and answers.
func (q *queue) settle(b batch, err error) {
	q.mu.Lock()
	for _, o := range b.ops {
		p := place{o.bucket, o.key}
		w, waits := q.soon[p]
		if err == nil && waits && w.seq <= b.seq {
			delete(q.soon, p)
		}
		if err != nil && b.done == nil && waits && w.seq == b.seq {
			q.retry = append(q.retry, b)
		}
	}
	q.mu.Unlock()
	if b.done != nil {
		b.done <- err
	}
}

// pending returns the value PutSoon took for p and has not yet written.
func (q *queue) pending(p place) ([]byte, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w, ok := q.soon[p]
	return w.value, ok
}

// pendingIn returns every such value of a bucket.
func (q *queue) pendingIn(bucket string) map[string][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := map[string][]byte{}
	for p, w := range q.soon {
		if p.bucket == bucket {
			out[p.key] = w.value
		}
	}
	return out
}
