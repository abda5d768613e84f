package unpack

import (
	"strings"
)

const whiteoutPrefix = ".wh."

// The kinds of names that carry a meaning for layers (OCI image layer spec,
// "Whiteouts").
const (
	plain = iota
	whiteout
	opaque
	aufsMeta
	badWhiteout
)

// cleanName returns an entry's name relative to the layer's root, without
// empty and "." components. A leading slash means the layer's root, as it does
// to every engine. ".." is refused wherever it stands: what it would mean
// depends on symlinks that another entry chooses.
func cleanName(raw string, limit int) (string, error) {
	if len(raw) > limit {
		return "", over("bytes in a name", int64(limit))
	}
	if strings.IndexByte(raw, 0) >= 0 {
		return "", bad(raw, "the name holds a NUL byte")
	}
	if isClean(raw) {
		return raw, nil
	}
	var parts []string
	for part := range strings.SplitSeq(raw, "/") {
		switch part {
		case "", ".":
		case "..":
			return "", bad(raw, `the name holds ".."`)
		default:
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return ".", nil
	}
	return strings.Join(parts, "/"), nil
}

// isClean recognises, without allocating, the names most entries have.
func isClean(name string) bool {
	if name == "" || name[len(name)-1] == '/' || name[0] == '/' {
		return false
	}
	start := true
	for i := range len(name) {
		c := name[i]
		if start && (c == '.' || c == '/') {
			return false // maybe "." or "..": look closely
		}
		start = c == '/'
	}
	return true
}

// split returns the directory, "." for the root, and the last component.
func split(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return ".", name
	}
	return name[:i], name[i+1:]
}

func join(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}

// whiteoutKind classifies a clean name.
func whiteoutKind(name string) int {
	if !strings.Contains(name, whiteoutPrefix) {
		return plain
	}
	dir, base := split(name)
	for part := range strings.SplitSeq(dir, "/") {
		if strings.HasPrefix(part, ".wh..wh.") {
			return aufsMeta
		}
		if strings.HasPrefix(part, whiteoutPrefix) {
			return badWhiteout
		}
	}
	switch {
	case base == ".wh..wh..opq":
		return opaque
	case strings.HasPrefix(base, ".wh..wh."):
		return aufsMeta
	case base == ".wh.", base == ".wh..", base == ".wh...":
		return badWhiteout
	case strings.HasPrefix(base, whiteoutPrefix):
		return whiteout
	}
	return plain
}
