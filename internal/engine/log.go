package engine

import (
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"fief/internal/monitor"
	"fief/internal/monitor/logread"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// logged fills in where a new container's output goes. The options are checked
// here, where the daemon's default is known; a tag is tried once.
func (e *Engine) logged(rec *record.Container, asked ask.Log) error {
	l := asked.Over(e.cfg.Log)
	s, err := l.Parse()
	if err != nil {
		return err
	}
	rec.Log = record.Log{Driver: l.Driver, Options: l.Options, MaxSize: s.MaxSize, MaxFile: s.MaxFile, Compress: s.Compress, Buffer: s.Buffer}
	switch l.Driver {
	case "json-file":
		rec.LogPath = filepath.Join(e.cfg.DataRoot, "logs", rec.ID+"-json.log")
	case "local":
		rec.LogPath = filepath.Join(e.cfg.DataRoot, "logs", rec.ID+"-local.log")
	}
	_, err = e.logOf(*rec)
	return err
}

// logOf is what the monitor is told of a container's log.
func (e *Engine) logOf(rec record.Container) (monitor.Log, error) {
	l := monitor.Log{Driver: rec.Log.Driver, Path: rec.LogPath, MaxSize: rec.Log.MaxSize, MaxFile: uint32(max(rec.Log.MaxFile, 0)),
		Compress: rec.Log.Compress, Buffer: rec.Log.Buffer}
	attrs := noted(rec)
	tag, err := e.logTag(rec)
	if err != nil {
		return l, err
	}
	switch rec.Log.Driver {
	case "json-file":
		if rec.Log.Options["tag"] != "" {
			attrs["tag"] = tag
		}
		if len(attrs) > 0 {
			b, err := json.Marshal(attrs)
			if err != nil {
				return l, fault.Wrap(fault.Internal, "note", "log attributes", err, "")
			}
			l.Attrs = string(b)
		}
	case "journald":
		l.Fields = []string{"CONTAINER_ID=" + ref.Short(rec.ID), "CONTAINER_ID_FULL=" + rec.ID, "CONTAINER_NAME=" + rec.Name,
			"CONTAINER_TAG=" + tag, "IMAGE_NAME=" + rec.Image, "SYSLOG_IDENTIFIER=" + tag}
		for _, k := range slices.Sorted(maps.Keys(attrs)) {
			if name := journalName(k); name != "" {
				l.Fields = append(l.Fields, name+"="+attrs[k])
			}
		}
	}
	return l, nil
}

// noted are the labels and variables that a log was told to note with each line.
func noted(rec record.Container) map[string]string {
	out := map[string]string{}
	env := map[string]string{}
	for _, kv := range rec.Env {
		if name, value, ok := strings.Cut(kv, "="); ok {
			env[name] = value
		}
	}
	for _, from := range []struct {
		values      map[string]string
		list, regex string
	}{
		{rec.Labels, rec.Log.Options["labels"], rec.Log.Options["labels-regex"]},
		{env, rec.Log.Options["env"], rec.Log.Options["env-regex"]},
	} {
		for name := range strings.SplitSeq(from.list, ",") {
			if v, ok := from.values[name]; ok && name != "" {
				out[name] = v
			}
		}
		if from.regex == "" {
			continue
		}
		match, err := regexp.Compile(from.regex)
		for name, v := range from.values {
			if err == nil && match.MatchString(name) {
				out[name] = v
			}
		}
	}
	return out
}

// journalName makes a name of upper-case letters, digits and underscores that
// begins with none of the last, as journald takes only those from programs.
func journalName(s string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, s)
	return strings.TrimLeft(name, "_0123456789")
}

// tagged is what a tag's template may ask for: Docker's names
// (docs.docker.com/engine/logging/log_tags).
type tagged struct {
	ID, FullID, Name                   string
	ImageID, ImageFullID, ImageName    string
	DaemonName, ContainerName, Command string
}

func (e *Engine) logTag(rec record.Container) (string, error) {
	text := first(rec.Log.Options["tag"], "{{.ID}}")
	image := strings.TrimPrefix(rec.ImageID, "sha256:")
	t, err := template.New("log-tag").Parse(text)
	var out strings.Builder
	if err == nil {
		err = t.Execute(&out, tagged{
			ID: ref.Short(rec.ID), FullID: rec.ID, Name: rec.Name, ImageID: image[:min(12, len(image))], ImageFullID: rec.ImageID,
			ImageName: rec.Image, DaemonName: "fief", ContainerName: "/" + rec.Name,
			Command: strings.Join(append([]string{rec.Path}, rec.Args...), " "),
		})
	}
	if err != nil {
		return "", fault.Say(fault.Invalid, "failed to parse log tag: "+err.Error())
	}
	return out.String(), nil
}

// Logs calls each for every wanted line, to the end; with Follow until the
// container has ended or ctx does. Unsupported where the driver keeps nothing
// that can be read.
func (e *Engine) Logs(ctx context.Context, name string, want ask.Logs, each func(record.LogLine) error) error {
	c, err := e.table.find(name)
	if err != nil {
		return err
	}
	rec := c.record()
	switch rec.Log.Driver {
	case "none":
		return fault.Say(fault.Unsupported, "configured logging driver does not support reading")
	case "journald":
		return logread.ReadJournal(ctx, rec.ID, want, ended(c), each)
	}
	return logread.Read(ctx, rec.LogPath, want, ended(c), each)
}
