package show

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// ParseEvent reads an event as the daemon sends it.
func ParseEvent(body []byte) (record.Event, error) {
	var e record.Event
	err := json.Unmarshal(body, &e)
	return e, fault.Wrap(fault.Corrupt, "read event", "", err, "fief and fiefd may be of different builds")
}

// EventLine is docker's line for an event.
func EventLine(e record.Event, zone *time.Location) string {
	line := e.At.In(zone).Format("2006-01-02T15:04:05.000000000Z07:00") + " " + e.Type + " " + e.Action + " " + e.ID
	if len(e.Attrs) == 0 {
		return line
	}
	var attrs []string
	for _, k := range slices.Sorted(maps.Keys(e.Attrs)) {
		attrs = append(attrs, k+"="+e.Attrs[k])
	}
	return line + " (" + strings.Join(attrs, ", ") + ")"
}

type dockerEvent struct {
	Type     string
	Action   string
	Actor    dockerActor
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
}

type dockerActor struct {
	ID         string
	Attributes map[string]string
}

// DockerEvent is the object that templates and JSON show of an event.
func DockerEvent(e record.Event) any {
	return dockerEvent{e.Type, e.Action, dockerActor{e.ID, e.Attrs}, "local", e.At.Unix(), e.At.UnixNano()}
}
