package image

import (
	"sync"
	"time"

	"fief/internal/words/record"

	"github.com/opencontainers/go-digest"
)

// teller passes progress on, one call at a time. A nil teller says nothing.
type teller struct {
	mu   sync.Mutex
	tell func(record.Progress)
	last map[string]time.Time // per bar, when bytes were last told
}

func newTeller(tell func(record.Progress)) *teller {
	if tell == nil {
		return nil
	}
	return &teller{tell: tell, last: map[string]time.Time{}}
}

// loading is a teller whose layers come from an archive, in Docker's words:
// only those that are unpacked are worth one.
func (t *teller) loading() *teller {
	if t == nil {
		return nil
	}
	return newTeller(func(p record.Progress) {
		switch p.Status {
		case "Pulling fs layer", "Already exists", "Pull complete":
			return
		case "Extracting":
			p.Status = "Loading layer"
		}
		t.tell(p)
	})
}

// say tells a sentence about the bar id, or about everything when id is empty.
func (t *teller) say(id, status string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.last, id)
	t.tell(record.Progress{ID: id, Status: status})
}

// pass passes on what another teller told.
func (t *teller) pass(p record.Progress) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell(p)
}

// bytes tells how far something is, not more than ten times a second.
func (t *teller) bytes(id, status string, current, total int64) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); current < total && now.Sub(t.last[id]) < 100*time.Millisecond {
		return
	} else {
		t.last[id] = now
	}
	t.tell(record.Progress{ID: id, Status: status, Current: current, Total: total})
}

// barOf is how Docker's clients know a layer: twelve digits of its digest.
func barOf(d digest.Digest) string { return d.Encoded()[:12] }
