package cli

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// filterSet is --filter KEY=VALUE by key. Values of one key are alternatives,
// keys must all hold; labels must all hold as well.
type filterSet map[string][]string

func parseFilters(given []string, known ...string) (filterSet, error) {
	f := filterSet{}
	for _, g := range given {
		k, v, ok := strings.Cut(g, "=")
		if !ok {
			return nil, fault.Say(fault.Invalid, "invalid filter '"+g+"': bad format of filter (expected name=value)")
		}
		k = strings.ToLower(strings.TrimSpace(k))
		if !slices.Contains(known, k) {
			return nil, fault.Say(fault.Invalid, "invalid filter '"+k+"'")
		}
		f[k] = append(f[k], strings.TrimSpace(v))
	}
	return f, nil
}

// any reports whether no value is given for key or one of them fits.
func (f filterSet) any(key string, fits func(string) bool) bool {
	values, ok := f[key]
	return !ok || slices.ContainsFunc(values, fits)
}

// labels reports whether all labels asked for are there.
func (f filterSet) labels(key string, has map[string]string) bool {
	for _, want := range f[key] {
		k, v, valued := strings.Cut(want, "=")
		got, ok := has[k]
		if !ok || valued && got != v {
			return false
		}
	}
	return true
}

// containerFilter makes the predicate of ps --filter, but for what refers to
// other containers (before, since) and for names: those are regular
// expressions, which the daemon matches, since linking them into fief slows
// every start of it.
func containerFilter(given []string, now time.Time) (func(record.Container) bool, error) {
	f, err := parseFilters(given, "id", "label", "label!", "status", "exited", "ancestor", "network", "volume", "until", "health", "publish", "expose")
	if err != nil {
		return nil, err
	}
	for _, v := range f["exited"] {
		if _, err := strconv.Atoi(v); err != nil {
			return nil, fault.Say(fault.Invalid, "invalid filter 'exited="+v+"'")
		}
	}
	until, err := f.time("until", now)
	if err != nil {
		return nil, err
	}
	return func(c record.Container) bool {
		return f.any("id", func(v string) bool { return strings.HasPrefix(c.ID, v) }) &&
			f.labels("label", c.Labels) &&
			(len(f["label!"]) == 0 || !f.labels("label!", c.Labels)) &&
			f.any("status", func(v string) bool { return v == c.State.Word() }) &&
			f.any("exited", func(v string) bool { return c.State.Status == record.Exited && v == strconv.Itoa(c.State.ExitCode) }) &&
			f.any("ancestor", func(v string) bool { return madeOf(c, v) }) &&
			f.any("network", func(v string) bool { return onNetwork(c, v) }) &&
			f.any("publish", func(v string) bool { return hasPort(c, v, true) }) && f.any("expose", func(v string) bool { return hasPort(c, v, false) }) &&
			f.any("health", func(v string) bool { return v == c.HealthOf() }) &&
			f.any("volume", func(v string) bool { return mountsAt(c, v) }) &&
			(until.IsZero() || c.Created.Before(until))
	}, nil
}

func onNetwork(c record.Container, v string) bool {
	return v == c.Network || slices.ContainsFunc(c.Net.Endpoints, func(e record.Endpoint) bool { return e.Network == v || strings.HasPrefix(e.NetworkID, v) })
}

// hasPort reports whether a container has published, or exposes, one of the
// ports PORT[-END][/PROTO].
func hasPort(c record.Container, v string, published bool) bool {
	ports, err := ask.ParseExpose(v)
	has := c.Net.Exposed
	if published {
		has = nil
		for _, p := range c.Net.Published {
			has = append(has, strconv.Itoa(int(p.Host))+"/"+p.Proto)
		}
	}
	return err == nil && slices.ContainsFunc(ports, func(p string) bool { return slices.Contains(has, p) })
}

func madeOf(c record.Container, image string) bool {
	id := strings.TrimPrefix(c.ImageID, "sha256:")
	return tagged(c.Image) == tagged(image) || id != "" && len(image) >= 4 && strings.HasPrefix(id, strings.TrimPrefix(image, "sha256:"))
}

func mountsAt(c record.Container, v string) bool {
	return slices.ContainsFunc(c.Mounts, func(m record.Mount) bool { return m.Name == v || m.Source == v || m.Target == v })
}

// time reads a time filter: RFC 3339, seconds since 1970, or a duration ago.
func (f filterSet) time(key string, now time.Time) (time.Time, error) {
	values := f[key]
	if len(values) == 0 {
		return time.Time{}, nil
	}
	return parseTime(values[len(values)-1], now)
}

// parseTime reads what --since and --until take.
func parseTime(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if s, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(0, int64(s*1e9)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02", "2006-01-02Z07:00"} {
		if t, err := time.ParseInLocation(layout, v, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fault.Say(fault.Invalid, "failed to parse value as time or duration: \""+v+"\"")
}

// imageFilter makes the predicate of images --filter and of a name pattern. It
// asks the daemon about the images that before= and since= name. Like Docker's it
// leaves an image the names that reference= matches.
func (c *Client) imageFilter(given []string, pattern string, now time.Time) (func(*record.Image) bool, error) {
	f, err := parseFilters(given, "before", "dangling", "label", "label!", "reference", "since", "until")
	if err != nil {
		return nil, err
	}
	for _, v := range f["dangling"] {
		if _, err := strconv.ParseBool(v); err != nil {
			return nil, fault.Say(fault.Invalid, "invalid filter 'dangling="+v+"'")
		}
	}
	until, err := f.time("until", now)
	if err != nil {
		return nil, err
	}
	var before, since record.Image
	for key, to := range map[string]*record.Image{"before": &before, "since": &since} {
		for _, name := range f[key] {
			if err := c.call(wire.Image, wire.Name{Name: name}, to); err != nil {
				return nil, err
			}
		}
	}
	if pattern != "" {
		f["reference"] = append(f["reference"], pattern)
	}
	return func(i *record.Image) bool {
		dangling := len(i.Names) == 0
		return f.any("dangling", func(v string) bool { want, _ := strconv.ParseBool(v); return want == dangling }) &&
			f.labels("label", i.Config.Labels) &&
			(len(f["label!"]) == 0 || !f.labels("label!", i.Config.Labels)) &&
			(until.IsZero() || i.Created.Before(until)) &&
			(len(f["before"]) == 0 || i.Created.Before(before.Created)) &&
			(len(f["since"]) == 0 || i.Created.After(since.Created)) && f.narrow(i)
	}, nil
}

// narrow leaves the names that a reference asked for matches, and reports
// whether there are any.
func (f filterSet) narrow(i *record.Image) bool {
	if len(f["reference"]) == 0 {
		return true
	}
	i.Names = slices.DeleteFunc(slices.Clone(i.Names), func(n string) bool {
		return !f.any("reference", func(pattern string) bool { return len(matching([]string{n}, pattern)) > 0 })
	})
	return len(i.Names) > 0
}

// matching returns the names that fit a pattern such as "busybox",
// "busybox:1.*" or "*/app".
func matching(names []string, pattern string) []string {
	var out []string
	for _, n := range names {
		whole := show.Familiar(n)
		repo, _ := show.SplitName(whole)
		for _, candidate := range []string{whole, repo, n} {
			if ok, err := path.Match(pattern, candidate); err == nil && ok {
				out = append(out, n)
				break
			}
		}
	}
	return out
}

// positions resolves before= and since= of ps: they name containers.
func positions(all []record.Container, name string) (time.Time, error) {
	for _, c := range all {
		if c.Name == strings.TrimPrefix(name, "/") || c.ID == name || ref.Short(c.ID) == name {
			return c.Created, nil
		}
	}
	return time.Time{}, fault.Say(fault.NotFound, "No such container: "+name)
}
