package serve

import "sync"

// sinkRoom is how much output may wait for one client before the container's
// pipe is no longer read for it.
const sinkRoom = 64 << 10

// sink is the way of one output stream to one client. Writing to it never
// waits: what the client does not take at once is kept, and a goroutine that
// lives only meanwhile brings it over. Who produces asks full before the next
// read; that is the back pressure.
type sink struct {
	to     *endpoint
	broken func() // called once, on a goroutine of its own, when the client is gone

	mu      sync.Mutex
	pending []byte
	dead    bool
	room    chan struct{} // closed when pending has shrunk or the sink is dead; nil when there is room
	idle    chan struct{} // closed when pending is empty or the sink is dead; nil when nothing is pending
}

// write passes p on and keeps what is not taken.
func (k *sink) write(p []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return
	}
	if len(k.pending) == 0 && k.idle == nil {
		n, err := k.to.TryWrite(p)
		if err != nil {
			k.die()
			go k.broken()
			return
		}
		p = p[n:]
	}
	if len(p) == 0 {
		return
	}
	k.pending = append(k.pending, p...)
	if k.idle == nil {
		k.idle = make(chan struct{})
		go k.bring()
	}
}

// bring writes what is pending until nothing is.
func (k *sink) bring() {
	for {
		k.mu.Lock()
		p := k.pending
		k.pending = nil
		if len(p) == 0 || k.dead {
			k.release()
			k.mu.Unlock()
			return
		}
		k.wake()
		k.mu.Unlock()
		if _, err := k.to.Write(p); err != nil {
			k.kill()
			k.broken()
			return
		}
	}
}

// wake lets the producer go on. Preconditions: k.mu held.
func (k *sink) wake() {
	if k.room != nil {
		close(k.room)
		k.room = nil
	}
}

// release says that nothing is pending. Preconditions: k.mu held.
func (k *sink) release() {
	k.wake()
	if k.idle != nil {
		close(k.idle)
		k.idle = nil
	}
}

// die drops what is pending and takes nothing more. Preconditions: k.mu held.
func (k *sink) die() {
	k.dead = true
	k.pending = nil
	k.release()
}

// kill is die for callers without the lock. Closing the endpoint is theirs.
func (k *sink) kill() {
	k.mu.Lock()
	k.die()
	k.mu.Unlock()
}

// full returns a channel to wait for before producing more, or nil.
func (k *sink) full() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead || len(k.pending) < sinkRoom {
		return nil
	}
	if k.room == nil {
		k.room = make(chan struct{})
	}
	return k.room
}

// flushed returns a channel that is closed when all written so far has been
// taken or the client is gone, or nil when that is so now.
func (k *sink) flushed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.idle
}

func (k *sink) isDead() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.dead
}
