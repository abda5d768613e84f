package ask

import (
	"fmt"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// The words of record.MountMap.
const (
	MapUserns = "userns"
	MapCustom = "custom"
	MapUser   = "match-user"
)

// Words applies the third part of -v, such as "ro,rslave,z": Docker's words and
// Podman's. Each kind of word may come once. The words for SELinux's labels and
// those of remote file systems are taken and change nothing: containers run
// without a label of their own.
func (m *Mount) Words(mode string) error {
	seen := map[string]bool{}
	for word := range strings.SplitSeq(mode, ",") {
		kind, err := m.Word(word)
		if err != nil {
			return err
		}
		if seen[kind] && (kind == "U" || kind == "idmap") {
			return fault.Say(fault.Invalid, "the '"+kind+"' option can only be set once: duplicate mount option passed")
		}
		if kind == "" || seen[kind] {
			return fault.Say(fault.Invalid, "invalid mode: "+mode)
		}
		seen[kind] = true
	}
	return nil
}

// Word applies one word and says of which kind it is; empty: there is no such.
func (m *Mount) Word(word string) (kind string, err error) {
	key, value, given := strings.Cut(word, "=")
	if key == "idmap" {
		m.Map, err = ParseMountMap(value)
		return "idmap", err
	}
	if given {
		return "", nil
	}
	switch word {
	case "ro", "rro", "rw":
		m.ReadOnly = word != "rw"
		return "access", nil
	case "rprivate", "private", "rslave", "slave", "rshared", "shared", "runbindable", "unbindable":
		m.Propagation = word
		return only(m.Kind == Bind, "propagation"), nil
	case "rbind", "bind":
		m.Recursive = word == "rbind"
		return only(m.Kind == Bind, "recursion"), nil
	case "nocopy", "copy":
		m.NoCopy = word == "nocopy"
		return only(m.Kind == Volume, "copy"), nil
	case "z", "Z":
		return "label", nil
	case "consistent", "cached", "delegated", "default":
		return "consistency", nil
	case "U":
		m.Chown = true
		return "U", nil
	case "exec", "noexec":
		m.NoExec = word == "noexec"
		return "exec", nil
	case "suid", "nosuid":
		m.NoSuid = word == "nosuid"
		return "suid", nil
	case "dev", "nodev":
		m.NoDev = word == "nodev"
		return "dev", nil
	}
	return "", nil
}

func only(here bool, kind string) string {
	if here {
		return kind
	}
	return ""
}

// ParseMountMap reads the value of idmap=: empty, or Podman's
// "uids=0-1-10#10-11-10;gids=@0-100-10".
func ParseMountMap(value string) (*record.MountMap, error) {
	if value == "" || value == "true" {
		return &record.MountMap{Kind: MapUserns}, nil
	}
	uid, gid, err := idmap.ParseMount(value)
	return &record.MountMap{Kind: MapCustom, UID: uid, GID: gid}, err
}

// ParseBindMap reads the value of bind-idmap=: userns, match-user or
// match-user:USER (docker/cli#7188).
func ParseBindMap(value string) (*record.MountMap, error) {
	kind, user, given := strings.Cut(value, ":")
	return MakeBindMap(kind, user, given && user == "")
}

// MakeBindMap makes the map of a source of ids and a user, as moby#53368 has
// them. bare says that a user was announced and not given.
func MakeBindMap(source, user string, bare bool) (*record.MountMap, error) {
	switch {
	case bare:
		return nil, fault.Say(fault.Invalid, "invalid id mapping: match-user: names no user")
	case source == MapUser, source == "" && user == "":
		return &record.MountMap{Kind: MapUser, User: user}, nil
	case source == MapUserns && user == "":
		return &record.MountMap{Kind: MapUserns}, nil
	case source == MapUserns:
		return nil, fault.Say(fault.Invalid, "invalid id mapping: a user belongs to match-user")
	}
	return nil, fault.Say(fault.Invalid, fmt.Sprintf("invalid id mapping %q: must be match-user[:USER] or userns", source))
}
