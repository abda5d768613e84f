package docker

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// eventMessage is one line of the stream. The lower-case fields are what
// clients before API 1.22 read; compose and docker up to 24 still do.
type eventMessage struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func (d *door) events(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.Form.Get("filters"), nil)
	if err != nil {
		return err
	}
	since, err := parseTime("since", r.Form.Get("since"))
	if err != nil {
		return err
	}
	until, err := parseTime("until", r.Form.Get("until"))
	if err != nil {
		return err
	}
	if since.IsZero() && !until.Before(time.Now()) {
		since = time.Now() // so that nothing between the headers and the listening is lost
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush(w)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	each := func(e record.Event) error {
		if !f.event(e) {
			return nil
		}
		err := enc.Encode(eventOf(e))
		flush(w)
		return err
	}
	d.engine.Events(r.Context(), ask.Events{Since: since, Until: until}, each) // its error is only that the client or the time has gone
	return nil
}

func eventOf(e record.Event) eventMessage {
	m := eventMessage{Message: events.Message{
		Type: events.Type(e.Type), Action: events.Action(e.Action),
		Actor: events.Actor{ID: e.ID, Attributes: e.Attrs},
		Scope: "local", Time: e.At.Unix(), TimeNano: e.At.UnixNano(),
	}}
	if m.Actor.Attributes == nil {
		m.Actor.Attributes = map[string]string{}
	}
	switch e.Type {
	case "container":
		m.Status, m.ID, m.From = e.Action, e.ID, e.Attrs["image"]
	case "image":
		m.Status, m.ID = e.Action, e.ID
	}
	return m
}

// event reports whether an event passes. Keys that docker does not know here
// are ignored, as docker ignores them.
func (f filters) event(e record.Event) bool {
	action, _, _ := strings.Cut(e.Action, ":")
	return f.any("type", func(v string) bool { return v == e.Type }) &&
		f.any("event", func(v string) bool { return v == e.Action || v == action }) &&
		f.any("scope", func(v string) bool { return v == "local" }) &&
		f.any("container", func(v string) bool { return e.Type == "container" && actorIs(e, v) }) &&
		f.any("image", func(v string) bool { return imageIs(e, v) }) &&
		f.any("daemon", func(v string) bool { return e.Type == "daemon" && actorIs(e, v) }) &&
		f.any("volume", func(v string) bool { return volumeIs(e, v) }) &&
		f.any("network", func(v string) bool { return e.Type == "network" && actorIs(e, v) }) &&
		!f.absentKind() && f.labels(e.Attrs)
}

// absentKind reports whether the filters ask for objects that do not exist
// here.
func (f filters) absentKind() bool {
	return slices.ContainsFunc([]string{"plugin", "service", "node", "secret", "config"}, f.has)
}

func actorIs(e record.Event, v string) bool {
	return v == e.Attrs["name"] || v != "" && strings.HasPrefix(e.ID, v)
}

// imageIs compares with and without the tag.
func imageIs(e record.Event, v string) bool {
	name := e.Attrs["image"]
	if e.Type == "image" {
		name = e.Attrs["name"]
		if e.ID == v {
			return true
		}
	}
	return v == name || v == untagged(name)
}

// untagged cuts ":tag" off a name, not a registry's port.
func untagged(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}
