package engine

import (
	"maps"
	"strings"
)

// first returns the first string that is not empty.
func first(of ...string) string {
	for _, s := range of {
		if s != "" {
			return s
		}
	}
	return ""
}

// mergeEnv lays the user's environment over the image's: a name that is set
// again keeps its place and takes the new value; a bare name removes it.
func mergeEnv(image, user []string) []string {
	out := append([]string{}, image...)
	for _, kv := range user {
		name, _, set := strings.Cut(kv, "=")
		at := findEnv(out, name)
		switch {
		case at >= 0 && set:
			out[at] = kv
		case at >= 0:
			out = append(out[:at], out[at+1:]...)
		case set:
			out = append(out, kv)
		}
	}
	return out
}

func findEnv(env []string, name string) int {
	for i, kv := range env {
		if n, _, _ := strings.Cut(kv, "="); n == name {
			return i
		}
	}
	return -1
}

// mergeLabels lays the user's labels over the image's.
func mergeLabels(image, user map[string]string) map[string]string {
	out := maps.Clone(image)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, user)
	return out
}
