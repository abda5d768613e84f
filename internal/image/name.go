package image

import (
	"strings"

	"fief/internal/words/fault"

	"github.com/distribution/reference"
)

// parseName reads a name as users write it, in Docker's grammar: "busybox" is
// docker.io/library/busybox. A name with both tag and digest means the digest.
func parseName(name string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "", "", err, "names are written like registry.example/path/name:tag")
	}
	if c, ok := named.(reference.Canonical); ok {
		if !isDigest(c.Digest().String()) {
			return nil, fault.Say(fault.Unsupported, "unsupported digest algorithm in "+name)
		}
		return reference.WithDigest(reference.TrimNamed(named), c.Digest())
	}
	return named, nil
}

// Familiar shortens a canonical name to what users write: without docker.io
// and library. Anything else comes back as it is.
func Familiar(canonical string) string {
	named, err := reference.ParseNormalizedNamed(canonical)
	if err != nil {
		return canonical
	}
	return reference.FamiliarString(named)
}

// canonical is the whole name under which an image is kept: always with a tag
// or a digest.
func canonical(named reference.Named) string { return reference.TagNameOnly(named).String() }

// isHex reports whether s may be the beginning of an id.
func isHex(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}
