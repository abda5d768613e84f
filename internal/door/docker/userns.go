package docker

import (
	"slices"
	"strings"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// The annotations that ask for a user namespace, for clients that can send
// neither a security option nor a userns mode. The last is how Podman keeps the
// mode of a container that it tells others about.
const (
	annotationUserns = "io.fief.userns"
	annotationUIDMap = "io.fief.uidmap"
	annotationGIDMap = "io.fief.gidmap"
	annotationSubUID = "io.fief.subuidname"
	annotationSubGID = "io.fief.subgidname"
	annotationPodman = "io.podman.annotations.userns"
)

// usernsAsked reads all channels: the userns mode, the security options and the
// annotations. They may repeat each other and must not contradict each other:
// the weaker of two would be somebody's surprise.
func usernsAsked(mode string, s security, annotations map[string]string) (ask.Userns, error) {
	w := s.userns
	for _, value := range []string{mode, annotations[annotationUserns], annotations[annotationPodman]} {
		if err := onceMode(&w.Mode, value); err != nil {
			return nil, err
		}
	}
	for _, c := range []struct {
		parts      *[]string
		key, value string
	}{{&w.UIDMaps, "uidmap", annotations[annotationUIDMap]}, {&w.GIDMaps, "gidmap", annotations[annotationGIDMap]}} {
		if err := onceMap(c.parts, c.key, c.value); err != nil {
			return nil, err
		}
	}
	if err := once(&w.SubUID, "subuidname", annotations[annotationSubUID]); err != nil {
		return nil, err
	}
	if err := once(&w.SubGID, "subgidname", annotations[annotationSubGID]); err != nil {
		return nil, err
	}
	return w.Parse()
}

// once sets a word to what a channel says, if it says anything, unless another
// channel has said something else.
func once(word *string, key, value string) error {
	switch {
	case value == "":
		return nil
	case *word != "" && *word != value:
		return invalid("%s is asked for twice: %.64q and %.64q", key, *word, value)
	}
	*word = value
	return nil
}

// onceMode is once for a mode, which may be said in several ways.
func onceMode(word *string, value string) error {
	if *word != "" && sameMode(*word, value) {
		return nil
	}
	return once(word, "userns", value)
}

func sameMode(a, b string) bool {
	left, err1 := ask.UsernsWords{Mode: a}.Parse()
	right, err2 := ask.UsernsWords{Mode: b}.Parse()
	return err1 == nil && err2 == nil && ask.UsernsText(left) == ask.UsernsText(right)
}

// onceMap is once for a map: security options give it in parts, an annotation
// as a whole.
func onceMap(parts *[]string, key, value string) error {
	if len(*parts) == 0 && value != "" {
		*parts = []string{value}
	}
	whole := strings.Join(*parts, ",")
	return once(&whole, key, value)
}

// securityOptOf adds explicit maps, unless the record has the words for them.
func securityOptOf(c record.Container) []string {
	opts := slices.Clone(c.SecurityOpt)
	if c.Identity.Mode != "map" || mapAsked(c) {
		return opts
	}
	if len(c.Identity.UID) > 0 {
		opts = append(opts, "uidmap="+strings.Join(spansOf(c.Identity.UID), ","))
	}
	if len(c.Identity.GID) > 0 {
		opts = append(opts, "gidmap="+strings.Join(spansOf(c.Identity.GID), ","))
	}
	return opts
}

// mapAsked reports whether the options or annotations of c ask for its map.
func mapAsked(c record.Container) bool {
	for _, key := range []string{annotationUIDMap, annotationGIDMap, annotationSubUID, annotationSubGID} {
		if c.Annotations[key] != "" {
			return true
		}
	}
	return slices.ContainsFunc(c.SecurityOpt, func(opt string) bool {
		key, _, _ := strings.Cut(opt, "=")
		return slices.Contains([]string{"uidmap", "gidmap", "subuidname", "subgidname"}, key)
	})
}

// usernsModeOf is the mode that asks for the same again. Explicit maps are
// "private" and among the security options; a container that was named is shown by id, since
// names change, unless an annotation still names it.
func usernsModeOf(c record.Container) string {
	id := c.Identity
	switch {
	case c.Annotations[annotationUserns] != "" || c.Annotations[annotationPodman] != "":
		return id.Asked
	case id.Mode == "container" && id.Asked != "" && id.Joined != "":
		return "container:" + id.Joined
	case id.Asked != "":
		return id.Asked
	case id.Mode == "host", id.Mode == "auto":
		return id.Mode
	}
	return ""
}
