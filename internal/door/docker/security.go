package docker

import (
	"encoding/json"
	"strconv"
	"strings"

	"fief/internal/words/ask"
)

// security is what the security options ask for. The words about user
// namespaces are the channel by which a docker command line can ask for one of
// the container's own: Docker itself refuses them, so nothing is weakened there.
type security struct {
	seccomp    ask.Seccomp
	noNewPrivs bool
	userns     ask.UsernsWords
}

func parseSecurity(opts []string) (security, error) {
	var s security
	for _, opt := range opts {
		if err := s.add(opt); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *security) add(opt string) error {
	if opt == "no-new-privileges" {
		s.noNewPrivs = true
		return nil
	}
	key, value, ok := strings.Cut(opt, "=")
	if !ok {
		if key, value, ok = strings.Cut(opt, ":"); !ok { // the form before Docker 1.11
			return invalid("invalid --security-opt 1: %q", opt)
		}
	}
	switch key {
	case "no-new-privileges":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return invalid("invalid --security-opt 2: %q", opt)
		}
		s.noNewPrivs = on
	case "seccomp":
		return s.addSeccomp(value)
	case "label":
		if value != "disable" {
			return refuse("security option "+opt, "SELinux labels do not exist here: leave it out or use label=disable")
		}
	case "apparmor":
		if value != "unconfined" {
			return refuse("security option "+opt, "AppArmor profiles are not applied: leave it out or use apparmor=unconfined")
		}
	case "userns":
		return onceMode(&s.userns.Mode, value)
	case "uidmap":
		s.userns.UIDMaps = append(s.userns.UIDMaps, value)
	case "gidmap":
		s.userns.GIDMaps = append(s.userns.GIDMaps, value)
	case "subuidname":
		return once(&s.userns.SubUID, key, value)
	case "subgidname":
		return once(&s.userns.SubGID, key, value)
	case "systempaths", "writable-cgroups":
		return refuse("security option "+opt, "leave it out")
	default:
		return invalid("invalid --security-opt 2: %q", opt)
	}
	return nil
}

// addSeccomp takes the profile itself: the client has read the file.
func (s *security) addSeccomp(value string) error {
	switch value {
	case "unconfined":
		s.seccomp = ask.Seccomp{Mode: ask.SeccompUnconfined}
	case "builtin", "":
		s.seccomp = ask.Seccomp{}
	default:
		var profile map[string]json.RawMessage
		if err := json.Unmarshal([]byte(value), &profile); err != nil {
			return invalid("Decoding seccomp profile failed: %v", err)
		}
		s.seccomp = ask.Seccomp{Mode: ask.SeccompProfile, Profile: []byte(value)}
	}
	return nil
}
