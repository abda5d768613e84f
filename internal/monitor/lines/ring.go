package lines

import (
	"sync"
	"time"
)

// Ring is a Sink between a container and a log that may not keep up: nobody
// waits for it. What finds no room is dropped, as Docker's mode=non-blocking
// drops it: the new pieces, not the old ones.
type Ring struct {
	to   Sink
	room int64

	mu      sync.Mutex
	held    int64 // bytes in queue
	queue   []entry
	dropped uint64
	closed  bool
	more    chan struct{}
	done    chan struct{}
}

type entry struct {
	text   []byte
	stream string
	at     time.Time
}

// NewRing puts a ring of room bytes before a sink, which it then owns.
func NewRing(to Sink, room int64) *Ring {
	r := &Ring{to: to, room: room, more: make(chan struct{}, 1), done: make(chan struct{})}
	go r.run()
	return r
}

// Lock implements Sink.
func (r *Ring) Lock() { r.mu.Lock() }

// Unlock implements Sink.
func (r *Ring) Unlock() { r.mu.Unlock() }

// Add implements Sink. A piece larger than the ring is taken by an empty one.
func (r *Ring) Add(text []byte, stream string, at time.Time) {
	if r.held > 0 && r.held+int64(len(text)) > r.room {
		r.dropped++
		return
	}
	r.held += int64(len(text))
	r.queue = append(r.queue, entry{append([]byte(nil), text...), stream, at})
}

// Flush implements Sink: it wakes who brings the pieces over and does not wait.
func (r *Ring) Flush() {
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// Close brings over what is held and closes the sink behind.
func (r *Ring) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.Flush()
	<-r.done
	return r.to.Close()
}

func (r *Ring) run() {
	defer close(r.done)
	for {
		r.mu.Lock()
		queue, closed := r.queue, r.closed
		r.queue = nil
		r.mu.Unlock()
		if len(queue) == 0 {
			if closed {
				return
			}
			<-r.more
			continue
		}
		r.to.Lock()
		var size int64
		for _, e := range queue {
			r.to.Add(e.text, e.stream, e.at)
			size += int64(len(e.text))
		}
		r.to.Flush()
		r.to.Unlock()
		r.mu.Lock()
		r.held -= size
		r.mu.Unlock()
	}
}
