package docker

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
)

// filters is the decoded filters parameter: the values asked for, by key.
type filters map[string][]string

// parseFilters reads both shapes clients send: {"label":{"a=b":true}} (the Go
// client) and {"label":["a=b"]} (docker-py, dockerode). A key that is not
// accepted is refused; nil accepts all.
func parseFilters(raw string, accepted []string) (filters, error) {
	out := filters{}
	if raw == "" {
		return out, nil
	}
	var byKey map[string]json.RawMessage
	if err := json.Unmarshal([]byte(raw), &byKey); err != nil {
		return nil, invalid("invalid filters: %v", err)
	}
	for key, value := range byKey {
		if accepted != nil && !slices.Contains(accepted, key) {
			return nil, invalid("invalid filter '%s'", key)
		}
		list, err := filterValues(value)
		if err != nil {
			return nil, invalid("invalid filter '%s': %v", key, err)
		}
		if len(list) > 0 {
			out[key] = list
		}
	}
	return out, nil
}

func filterValues(raw json.RawMessage) ([]string, error) {
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return list, nil
	}
	var set map[string]bool
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, err
	}
	for v, on := range set {
		if on {
			list = append(list, v)
		}
	}
	slices.Sort(list)
	return list, nil
}

func (f filters) has(key string) bool { return len(f[key]) > 0 }

// any reports whether the key was not given or one of its values satisfies
// match.
func (f filters) any(key string, match func(value string) bool) bool {
	return !f.has(key) || slices.ContainsFunc(f[key], match)
}

// labels reports whether the labels have all that "label" asks for and none
// of what "label!" names.
func (f filters) labels(labels map[string]string) bool {
	has := func(want string) bool {
		key, value, pair := strings.Cut(want, "=")
		got, found := labels[key]
		return found && (!pair || got == value)
	}
	for _, want := range f["label"] {
		if !has(want) {
			return false
		}
	}
	return !slices.ContainsFunc(f["label!"], has)
}

// truth reads a filter that is true or false; def when it was not given.
func (f filters) truth(key string, def bool) (bool, error) {
	if !f.has(key) {
		return def, nil
	}
	if len(f[key]) == 1 {
		switch strings.ToLower(f[key][0]) {
		case "1", "true":
			return true, nil
		case "0", "false":
			return false, nil
		}
	}
	return false, invalid("invalid filter '%s=%v': must be \"true\" (or \"1\"), or \"false\" (or \"0\")", key, f[key])
}

// moment reads a filter that is one time; zero when it was not given.
func (f filters) moment(key string) (time.Time, error) {
	switch len(f[key]) {
	case 0:
		return time.Time{}, nil
	case 1:
		return parseTime(key, f[key][0])
	}
	return time.Time{}, invalid("more than one %s filter specified", key)
}

// resembles reports whether the pattern, a regular expression or the text
// itself, matches.
func resembles(pattern, text string) bool {
	if pattern == text {
		return true
	}
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(text)
}
