package docker

import (
	"encoding/json"
	"strconv"
	"strings"

	"fief/internal/words/ask"
	"fief/internal/words/idmap"
)

// security is what the security options ask for. userns, uid and gid are the
// channel by which a docker command line can ask for a map of the container's
// own: Docker itself refuses these words, so nothing is weakened there.
type security struct {
	seccomp    ask.Seccomp
	noNewPrivs bool
	userns     string
	uid, gid   []string // "C:H:N[,C:H:N…]"
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
		if s.userns != "" && s.userns != value {
			return invalid("security options userns=%s and userns=%s contradict each other", s.userns, value)
		}
		s.userns = value
	case "uidmap":
		s.uid = append(s.uid, value)
	case "gidmap":
		s.gid = append(s.gid, value)
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

// The annotations that ask for a user namespace, for clients that can send
// neither a security option nor a userns mode.
const (
	annotationUserns = "io.fief.userns"
	annotationUIDMap = "io.fief.uidmap"
	annotationGIDMap = "io.fief.gidmap"
)

// usernsAsked reads all channels. They may repeat each other and must not
// contradict each other: the weaker of two would be somebody's surprise.
func usernsAsked(mode string, s security, annotations map[string]string) (ask.Userns, error) {
	said := ""
	for _, m := range []string{mode, s.userns, annotations[annotationUserns]} {
		if m != "" && said != "" && m != said {
			return nil, invalid("the user namespace is asked for twice: %q and %q", said, m)
		}
		if m != "" {
			said = m
		}
	}
	uid, gid := s.uid, s.gid
	if v := annotations[annotationUIDMap]; v != "" {
		uid = append(uid, v)
	}
	if v := annotations[annotationGIDMap]; v != "" {
		gid = append(gid, v)
	}
	if len(uid)+len(gid) == 0 {
		return parseUserns(said)
	}
	if said != "" && said != "private" {
		return nil, invalid("uidmap and gidmap cannot be combined with userns=%s", said)
	}
	pair, err := idmap.ParsePair(uid, gid)
	if err != nil {
		return nil, err
	}
	return ask.UsernsMap{Pair: pair}, nil
}

// parseUserns reads host, private, auto and auto:size=N. Private is a range of
// the container's own whatever the daemon's default is.
func parseUserns(mode string) (ask.Userns, error) {
	kind, rest, more := strings.Cut(mode, ":")
	switch {
	case mode == "":
		return ask.UsernsDefault{}, nil
	case mode == "host":
		return ask.UsernsHost{}, nil
	case mode == "auto", mode == "private":
		return ask.UsernsAuto{}, nil
	case kind == "auto" && more:
		size, found := strings.CutPrefix(rest, "size=")
		n, err := strconv.ParseUint(size, 10, 32)
		if !found || err != nil || n == 0 {
			return nil, invalid("invalid userns mode %q: auto takes size=N, with N from 1 to 4294967295", mode)
		}
		return ask.UsernsAuto{Size: uint32(n)}, nil
	case kind == "container", kind == "keep-id", kind == "nomap", kind == "ns":
		return nil, refuse("userns mode "+mode, "use host, private, auto, auto:size=N, or uidmap and gidmap")
	}
	return nil, invalid("invalid userns mode %q: use host, private, auto, auto:size=N, or uidmap and gidmap", mode)
}
