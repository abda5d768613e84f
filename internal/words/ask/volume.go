package ask

import (
	"strings"

	"fief/internal/words/fault"
)

// LocalDriver is the only volume driver there is.
const LocalDriver = "local"

// CreateVolume is a complete request for a volume. An empty name asks for one of
// the engine's making: an anonymous volume.
type CreateVolume struct {
	Name    string
	Driver  string            // empty: local
	Options map[string]string // of the local driver: type, o, device, size
	Labels  map[string]string
}

// maxVolumeName is what a file name may have (NAME_MAX), less the longest word
// that the engine puts before one.
const maxVolumeName = 240

// CheckVolumeName refuses what cannot be a volume's name, in Docker's words.
func CheckVolumeName(name string) error {
	switch {
	case len(name) == 1:
		return fault.Say(fault.Invalid, "volume name is too short, names should be at least two alphanumeric characters")
	case len(name) > maxVolumeName:
		return fault.Say(fault.Invalid, "volume name is too long: a name has at most 240 characters")
	case !IsVolumeName(name):
		return fault.Say(fault.Invalid, `"`+name+`" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`)
	}
	return nil
}

// IsVolumeName reports whether a volume can have this name.
func IsVolumeName(name string) bool {
	for i := range len(name) {
		c := name[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return len(name) >= 2 && len(name) <= maxVolumeName
}

// ParseVolumesFrom reads --volumes-from: NAME[:MODE], with the modes ro, rw, z
// and Z, or several joined by commas.
func ParseVolumesFrom(spec string) (VolumesFrom, error) {
	name, mode, given := strings.Cut(spec, ":")
	v := VolumesFrom{Container: name}
	if name == "" {
		return v, fault.Say(fault.Invalid, "malformed volumes-from specification: '"+spec+"'")
	}
	if !given {
		return v, nil
	}
	for word := range strings.SplitSeq(mode, ",") {
		switch word {
		case "ro":
			v.ReadOnly = true
		case "rw", "z", "Z":
		default:
			return v, fault.Say(fault.Invalid, "invalid mode: "+mode)
		}
	}
	return v, nil
}
