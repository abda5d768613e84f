package docker

import (
	"bytes"
	"encoding/json"
	"net/http"
	"sync"

	"github.com/moby/moby/api/types/jsonstream"

	"fief/internal/words/record"
)

// progress is a stream of JSON objects, each ended by CR LF and sent at once.
// It may be used by several goroutines: layers come in side by side. head, if
// set, goes before the first line.
type progress struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	begun bool
	head  *line
}

// line is one object. The error is told twice: as text for old clients.
type line struct {
	Stream   string               `json:"stream,omitempty"`
	Status   string               `json:"status,omitempty"`
	Progress *jsonstream.Progress `json:"progressDetail,omitempty"`
	ID       string               `json:"id,omitempty"`
	Detail   *jsonstream.Error    `json:"errorDetail,omitempty"`
	Error    string               `json:"error,omitempty"`
	Aux      any                  `json:"aux,omitempty"`
}

func newProgress(w http.ResponseWriter) *progress { return &progress{w: w} }

// open sends the headers; from here on errors are lines of the stream.
func (p *progress) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.openLocked()
}

// openLocked sends headers and head, once. Preconditions: p.mu held.
func (p *progress) openLocked() {
	if p.begun {
		return
	}
	p.begun = true
	p.w.Header().Set("Content-Type", "application/json")
	p.w.WriteHeader(http.StatusOK)
	if p.head != nil {
		p.write(*p.head)
	}
	flush(p.w)
}

// write sends one object. Preconditions: p.mu held.
func (p *progress) write(l line) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(l) // a struct of strings and numbers always encodes
	b.Truncate(b.Len() - 1)
	b.WriteString("\r\n")
	p.w.Write(b.Bytes())
}

func (p *progress) send(l line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.openLocked()
	p.write(l)
	flush(p.w)
}

// hold keeps a step back until something else is sent; false when something
// was.
func (p *progress) hold(s record.Progress) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun {
		return false
	}
	p.head = &line{Status: s.Status, ID: s.ID}
	return true
}

func (p *progress) status(id, text string) { p.send(line{Status: text, ID: id}) }

func (p *progress) text(s string) { p.send(line{Stream: s}) }

func (p *progress) step(s record.Progress) {
	p.send(line{Status: s.Status, ID: s.ID, Progress: &jsonstream.Progress{Current: s.Current, Total: s.Total}})
}

func (p *progress) aux(v any) { p.send(line{Progress: &jsonstream.Progress{}, Aux: v}) }

// fail returns err for a proper status when nothing was sent yet; else it is
// the last line.
func (p *progress) fail(err error) error {
	p.mu.Lock()
	begun := p.begun
	p.mu.Unlock()
	if !begun {
		return err
	}
	text := message(err)
	p.send(line{Detail: &jsonstream.Error{Message: text}, Error: text})
	return nil
}
