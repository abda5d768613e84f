// Package ref holds the names by which containers, images and sessions are
// known: 64-digit ids, their short form, and what a container may be called.
package ref

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"

	"fief/internal/words/fault"
)

// NewID returns 64 random lower-case hex digits. Ids whose first twelve digits
// are all decimal are not given out: docker clients print the short form, and
// a name that reads as a number confuses shells and JSON tools.
//
// Ids are unique, not secret: they come from the runtime's ChaCha8 generators,
// seeded by the kernel. crypto/rand would cost every start of fief the
// initialisation of Go's crypto packages.
func NewID() string {
	for {
		var b [32]byte
		for i := 0; i < len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], rand.Uint64())
		}
		id := hex.EncodeToString(b[:])
		if !decimal(id[:12]) {
			return id
		}
	}
}

func decimal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// Short returns the first twelve digits of an id, or the id itself when it is
// shorter.
func Short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// IsID reports whether s is 64 lower-case hex digits.
func IsID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}

// CheckName refuses container names that Docker refuses, in its words:
// [a-zA-Z0-9][a-zA-Z0-9_.-]+.
func CheckName(name string) error {
	ok := len(name) >= 2
	for i := range len(name) {
		c := name[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		ok = ok && (alnum || i > 0 && (c == '_' || c == '.' || c == '-'))
	}
	if ok {
		return nil
	}
	return fault.Say(fault.Invalid, "Invalid container name ("+name+"), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
}
