package docker

import (
	"context"
	"net/http"
	"time"

	"fief/internal/engine"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// streams is what reaches a container's standard streams and terminal. Attach
// returns once the attachment is registered, which it may be before the start.
type streams interface {
	Attach(ctx context.Context, id string, at engine.Attach) error
	Logs(ctx context.Context, id string, which ask.Logs, each func(record.LogLine) error) error
	Resize(ctx context.Context, id string, rows, cols uint16) error
	Top(ctx context.Context, id string, psArgs []string) (record.Top, error)
}

func (d *door) streamRoutes() []route {
	return []route{
		on("POST /containers/*/attach", d.attach),
		on("POST /containers/*/resize", d.resize),
		on("GET /containers/*/logs", d.logs),
	}
}

func (d *door) resize(w http.ResponseWriter, r *request) error {
	rows, cols, err := r.size()
	if err != nil {
		return err
	}
	if err := d.engine.Resize(r.Context(), r.name, rows, cols); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// attach answers 101 only when the engine has the streams: `docker run` starts
// the container when it has seen it, and must miss no byte.
func (d *door) attach(w http.ResponseWriter, r *request) error {
	c, err := d.engine.Inspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	keys, err := parseDetachKeys(r.Form.Get("detachKeys"))
	if err != nil {
		return err
	}
	live := r.truth("stream")
	e, at, err := newEnds(live && r.truth("stdin") && c.OpenStdin, live && r.truth("stdout"), live && r.truth("stderr") && !c.TTY)
	if err != nil {
		return err
	}
	at.DetachKeys = keys
	if live {
		err = d.engine.Attach(r.uncut(), c.ID, at)
	}
	closeAttach(at)
	if err != nil {
		e.close()
		return err
	}
	begun := time.Now()
	t, err := takeOver(w, r, streamMedia(!c.TTY, r.version))
	if err != nil {
		e.close()
		return err
	}
	out := &muxer{w: t.conn, framed: !c.TTY}
	if r.truth("logs") {
		past := ask.Logs{Stdout: r.truth("stdout"), Stderr: r.truth("stderr"), Until: begun, Tail: -1}
		d.sendLogs(r.Context(), c.ID, past, out)
	}
	t.serve(e, out)
	return nil
}

// sendLogs puts what was logged before into an attached stream.
func (d *door) sendLogs(ctx context.Context, id string, past ask.Logs, out *muxer) {
	err := d.engine.Logs(ctx, id, past, func(l record.LogLine) error {
		return out.say(streamOf(l), string(l.Text))
	})
	if err != nil {
		out.say(streamSys, "Error grabbing logs: "+message(err)+"\n")
	}
}

func streamOf(l record.LogLine) byte {
	if l.Stream == "stderr" {
		return streamErr
	}
	return streamOut
}

// parseDetachKeys reads "ctrl-p,ctrl-q" or single characters. Empty leaves the
// choice to the engine.
func parseDetachKeys(s string) ([]byte, error) {
	var keys []byte
	for len(s) > 0 {
		key := s
		for i := 1; i < len(s); i++ {
			if s[i] == ',' {
				key = s[:i]
				break
			}
		}
		s = s[len(key):]
		b, ok := detachKey(key)
		if !ok || s == "," {
			return nil, fault.Say(fault.Invalid, "Invalid detach keys provided: "+key)
		}
		keys = append(keys, b)
		if s != "" {
			s = s[1:]
		}
	}
	return keys, nil
}

// detachKey reads one key: a character, or ctrl- with a letter or one of
// @ [ \ ] ^ _ (docker-attach(1)).
func detachKey(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], true
	}
	if len(key) != 6 || key[:5] != "ctrl-" {
		return 0, false
	}
	switch c := key[5]; {
	case c >= 'a' && c <= 'z':
		return c - 'a' + 1, true
	case c == '@':
		return 0, true
	case c >= '[' && c <= '_':
		return c - '@', true
	}
	return 0, false
}
