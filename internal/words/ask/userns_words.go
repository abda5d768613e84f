package ask

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// UsernsWords is what a user typed about ids, wherever: flags, an API,
// configuration. Doors fill it and nothing else reads it.
type UsernsWords struct {
	Mode             string   // --userns; empty: nothing said
	UIDMaps, GIDMaps []string // --uidmap, --gidmap
	SubUID, SubGID   string   // --subuidname, --subgidname
}

const usernsModes = `use "host", "private", "auto[:size=N,uidmapping=C:H:N,gidmapping=C:H:N]", ` +
	`"keep-id[:uid=N,gid=N,size=N]", "nomap", "container:NAME" or "ns:/PATH"`

// Parse reads the words. Modes and their options are Podman's (podman-run(1),
// "--userns"), and so is what stands for what is missing: of uid maps and gid
// maps, and of the two names, one is for both.
//
// "private" is a namespace of the container's own whatever the daemon's default
// is: of the maps or names, else UsernsAuto. Every other mode excludes maps and
// names. Errors are of class Invalid and name what was typed.
func (w UsernsWords) Parse() (Userns, error) {
	maps := len(w.UIDMaps) > 0 || len(w.GIDMaps) > 0
	if !maps && w.SubUID == "" && w.SubGID == "" {
		return parseUserns(w.Mode)
	}
	if w.Mode != "" && w.Mode != "private" {
		f := fault.Say(fault.Invalid, "--userns and --uidmap/--gidmap/--subuidname/--subgidname are mutually exclusive")
		f.Hint = fmt.Sprintf("leave out --userns=%.64s, or the maps and names: they ask for a user namespace by themselves", w.Mode)
		return nil, f
	}
	pair, err := idmap.ParsePair(w.UIDMaps, w.GIDMaps)
	if err != nil {
		return nil, err
	}
	m := UsernsMap{Pair: pair, SubUID: w.SubUID, SubGID: w.SubGID}
	if m.SubUID == "" {
		m.SubUID = m.SubGID
	}
	if m.SubGID == "" {
		m.SubGID = m.SubUID
	}
	return m, nil
}

func parseUserns(mode string) (Userns, error) {
	switch mode {
	case "":
		return UsernsDefault{}, nil
	case "host":
		return UsernsHost{}, nil
	case "private", "auto":
		return UsernsAuto{}, nil
	case "keep-id":
		return UsernsKeepID{}, nil
	case "nomap", "no-map": // containers.conf(5) has the second, Podman takes the first
		return UsernsNomap{}, nil
	}
	kind, rest, _ := strings.Cut(mode, ":")
	switch kind {
	case "auto":
		return parseAuto(mode, rest)
	case "keep-id":
		return parseKeepID(mode, rest)
	case "container":
		if rest == "" {
			return nil, badUserns(mode, "container: needs the name or id of a container", "")
		}
		return UsernsContainer{Container: rest}, nil
	case "ns":
		if !path.IsAbs(rest) || strings.ContainsRune(rest, 0) {
			return nil, badUserns(mode, "ns: needs the absolute path of a user namespace", "such as ns:/proc/1234/ns/user")
		}
		return UsernsPath{Path: rest}, nil
	}
	f := fault.Say(fault.Invalid, fmt.Sprintf("--userns: invalid USER mode: %.128q", mode))
	f.Hint = usernsModes
	return nil, f
}

func parseAuto(mode, options string) (Userns, error) {
	const hint = "the options of auto are size=N, uidmapping=CONTAINER_ID:HOST_ID:LENGTH and gidmapping=…, separated by commas"
	var out UsernsAuto
	var uids, gids []string
	err := eachOption(mode, options, hint, func(key, value string) (why string, known bool) {
		switch key {
		case "size":
			out.Size, why = parseSize(value)
		case "uidmapping":
			uids = append(uids, value)
		case "gidmapping":
			gids = append(gids, value)
		default:
			return "", false
		}
		return why, true
	})
	if err != nil {
		return nil, err
	}
	if out.Extra.UID, err = (idmap.Grammar{}).ParseTriples(idmap.UID, uids); err == nil {
		out.Extra.GID, err = (idmap.Grammar{}).ParseTriples(idmap.GID, gids)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "use userns mode", fmt.Sprintf("%.128q", mode), err, "")
	}
	return out, nil
}

func parseKeepID(mode, options string) (Userns, error) {
	const hint = "the options of keep-id are uid=N, gid=N and size=N, separated by commas"
	var out UsernsKeepID
	err := eachOption(mode, options, hint, func(key, value string) (why string, known bool) {
		switch key {
		case "uid":
			out.UID, why = parseInside(value)
		case "gid":
			out.GID, why = parseInside(value)
		case "size":
			out.Size, why = parseSize(value)
		default:
			return "", false
		}
		return why, true
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// eachOption has take read the options of a mode, KEY=VALUE separated by commas.
// take says what is wrong with a value, and whether it knows the key.
func eachOption(mode, options, hint string, take func(key, value string) (why string, known bool)) error {
	for option := range strings.SplitSeq(options, ",") {
		key, value, ok := strings.Cut(option, "=")
		if !ok {
			return badUserns(mode, fmt.Sprintf("invalid option specified: %.64q", option), hint)
		}
		why, known := take(key, value)
		if !known {
			why = fmt.Sprintf("unknown option specified: %.64q", key)
		}
		if why != "" {
			return badUserns(mode, why, hint)
		}
	}
	return nil
}

// parseSize reads a number of ids, or says what is wrong with it.
func parseSize(value string) (n uint32, why string) {
	v, err := strconv.ParseUint(value, 10, 32)
	if err != nil || v == 0 {
		return 0, fmt.Sprintf("size %.32q is not a number from 1 to 4294967295", value)
	}
	return uint32(v), ""
}

func parseInside(value string) (id *idmap.Inside, why string) {
	v, err := strconv.ParseUint(value, 10, 32)
	if err != nil || v > idmap.Max {
		return nil, fmt.Sprintf("%.32q is not an id from 0 to 4294967294", value)
	}
	inside := idmap.Inside(v)
	return &inside, ""
}

func badUserns(mode, why, hint string) error {
	return fault.New(fault.Invalid, "use userns mode", fmt.Sprintf("%.128q", mode), why, hint)
}

// UsernsText is what --userns takes to ask for u again: empty for the daemon's
// choice and for nil, "private" for a UsernsMap, whose maps and names have
// flags of their own.
func UsernsText(u Userns) string {
	switch u := u.(type) {
	case UsernsAuto:
		return u.text()
	case UsernsHost:
		return "host"
	case UsernsMap:
		return "private"
	case UsernsKeepID:
		return u.text()
	case UsernsNomap:
		return "nomap"
	case UsernsContainer:
		return "container:" + u.Container
	case UsernsPath:
		return "ns:" + u.Path
	}
	return ""
}

func (u UsernsAuto) text() string {
	var options []string
	if u.Size > 0 {
		options = append(options, fmt.Sprint("size=", u.Size))
	}
	for _, s := range u.Extra.UID.Spans() {
		options = append(options, "uidmapping="+s.String())
	}
	for _, s := range u.Extra.GID.Spans() {
		options = append(options, "gidmapping="+s.String())
	}
	return withOptions("auto", options)
}

func (u UsernsKeepID) text() string {
	var options []string
	if u.UID != nil {
		options = append(options, fmt.Sprint("uid=", *u.UID))
	}
	if u.GID != nil {
		options = append(options, fmt.Sprint("gid=", *u.GID))
	}
	if u.Size > 0 {
		options = append(options, fmt.Sprint("size=", u.Size))
	}
	return withOptions("keep-id", options)
}

func withOptions(mode string, options []string) string {
	if len(options) == 0 {
		return mode
	}
	return mode + ":" + strings.Join(options, ",")
}
