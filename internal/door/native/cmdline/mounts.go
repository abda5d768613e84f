package cmdline

import (
	"encoding/csv"
	"path"
	"strconv"
	"strings"

	"fief/internal/words/ask"
)

func (o *RunOptions) mounted(r *Run, c Client) error {
	add := func(values []string, parse func(string, Client) (ask.Mount, error)) error {
		for _, v := range values {
			m, err := parse(v, c)
			if err != nil {
				return err
			}
			r.Ask.Mounts = append(r.Ask.Mounts, m)
		}
		return nil
	}
	if err := add(o.volumes, volume); err != nil {
		return err
	}
	if err := add(o.mounts, mount); err != nil {
		return err
	}
	if err := add(o.tmpfs, tmpfs); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, m := range r.Ask.Mounts {
		if seen[m.Target] {
			return conflict("Duplicate mount point: " + m.Target)
		}
		seen[m.Target] = true
	}
	return nil
}

// volume parses -v: [SOURCE:]TARGET[:OPTIONS]. A source that is a path is
// bound, and made when it is missing; another is a volume's name.
func volume(spec string, c Client) (ask.Mount, error) {
	bad := func(why string) (ask.Mount, error) {
		return ask.Mount{}, conflict("invalid volume specification: '" + spec + "': " + why)
	}
	parts := strings.Split(spec, ":")
	m := ask.Mount{Kind: ask.Volume, Recursive: true}
	switch len(parts) {
	case 1:
		m.Target = parts[0]
	case 2, 3:
		m.Source, m.Target = parts[0], parts[1]
		if m.Source == "" {
			return bad("empty section between colons")
		}
	default:
		return bad("too many colons")
	}
	if strings.HasPrefix(m.Source, "/") || strings.HasPrefix(m.Source, ".") {
		m.Kind, m.CreateSrc, m.Source = ask.Bind, true, c.abs(m.Source)
	} else if m.Source != "" && !volumeName(m.Source) {
		return bad("\"" + m.Source + "\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path")
	}
	if why := target(&m); why != "" {
		return bad(why)
	}
	if len(parts) < 3 {
		return m, nil
	}
	for opt := range strings.SplitSeq(parts[2], ",") {
		if !volumeOption(&m, opt) {
			return bad("invalid mode: " + opt)
		}
	}
	return m, nil
}

func volumeOption(m *ask.Mount, opt string) bool {
	switch opt {
	case "ro":
		m.ReadOnly = true
	case "rw", "cached", "delegated", "consistent", "z", "Z":
		// Words for other systems: there is neither a remote file system nor
		// an SELinux label to change here.
	default:
		return propagation(m, opt)
	}
	return true
}

func propagation(m *ask.Mount, word string) bool {
	switch word {
	case "private", "rprivate", "slave", "rslave", "shared", "rshared":
		m.Propagation = word
		return m.Kind == ask.Bind
	}
	return false
}

// target makes the mount point clean and returns what is wrong with it.
func target(m *ask.Mount) string {
	if !path.IsAbs(m.Target) {
		return "invalid mount path: '" + m.Target + "' mount path must be absolute"
	}
	m.Target = path.Clean(m.Target)
	if m.Target == "/" {
		return "invalid specification: destination can't be '/'"
	}
	return ""
}

func volumeName(s string) bool {
	for i, c := range s {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return len(s) > 1
}

// mount parses --mount: comma-separated KEY=VALUE, quoted as in CSV.
func mount(spec string, c Client) (ask.Mount, error) {
	bad := func(why string) (ask.Mount, error) { return ask.Mount{}, invalid("--mount", spec, why) }
	fields, err := csv.NewReader(strings.NewReader(spec)).Read()
	if err != nil {
		return bad(err.Error())
	}
	m := ask.Mount{Kind: ask.Volume, Recursive: true}
	for _, f := range fields { // the type decides what the others mean
		if k, v, _ := strings.Cut(f, "="); strings.EqualFold(k, "type") {
			m.Kind = ask.MountKind(strings.ToLower(v))
		}
	}
	if m.Kind != ask.Bind && m.Kind != ask.Volume && m.Kind != ask.Tmpfs {
		return bad("mount type \"" + string(m.Kind) + "\" is not one of bind, volume, tmpfs")
	}
	for _, f := range fields {
		if why := mountField(&m, f, c); why != "" {
			return bad(why)
		}
	}
	if m.Target == "" {
		return bad("target is required")
	}
	if m.Kind == ask.Bind && m.Source == "" {
		return bad("source is required for a bind mount")
	}
	if m.Kind == ask.Tmpfs && m.Source != "" {
		return bad("a tmpfs has no source")
	}
	if m.Kind == ask.Volume && m.Source != "" && !volumeName(m.Source) {
		return bad("\"" + m.Source + "\" is no volume name")
	}
	if why := target(&m); why != "" {
		return bad(why)
	}
	return m, nil
}

// mountField applies one KEY=VALUE and returns what is wrong with it.
func mountField(m *ask.Mount, field string, c Client) string {
	key, value, given := strings.Cut(field, "=")
	switch key = strings.ToLower(key); key {
	case "type":
		return ""
	case "readonly", "ro":
		on, err := strconv.ParseBool(value)
		if given && err != nil {
			return "invalid value for " + key + ": " + value
		}
		m.ReadOnly = !given || on
		return ""
	}
	if !given {
		return "invalid field '" + field + "' must be a key=value pair"
	}
	switch key {
	case "source", "src":
		m.Source = value
		if m.Kind == ask.Bind && value != "" {
			m.Source = c.abs(value)
		}
	case "target", "dst", "destination":
		m.Target = value
	case "bind-propagation":
		if !propagation(m, strings.ToLower(value)) {
			return "invalid propagation: " + value
		}
	case "bind-recursive":
		return bindRecursive(m, value)
	case "tmpfs-size", "tmpfs-mode":
		return tmpfsField(m, strings.TrimPrefix(key, "tmpfs-"), value)
	default:
		return "unexpected key '" + key + "' in '" + field + "'"
	}
	return ""
}

func bindRecursive(m *ask.Mount, value string) string {
	switch value {
	case "enabled":
		m.Recursive = true
	case "disabled":
		m.Recursive = false
	default:
		return "bind-recursive is enabled or disabled, not " + value
	}
	return ""
}

// tmpfs parses --tmpfs: TARGET[:OPTIONS].
func tmpfs(spec string, _ Client) (ask.Mount, error) {
	bad := func(why string) (ask.Mount, error) { return ask.Mount{}, invalid("--tmpfs", spec, why) }
	where, opts, _ := strings.Cut(spec, ":")
	m := ask.Mount{Kind: ask.Tmpfs, Target: where}
	if why := target(&m); why != "" {
		return bad(why)
	}
	if opts == "" {
		return m, nil
	}
	for opt := range strings.SplitSeq(opts, ",") {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "size", "mode":
			if why := tmpfsField(&m, key, value); why != "" {
				return bad(why)
			}
		case "exec":
			m.TmpfsExec = true
		case "ro":
			m.ReadOnly = true
		case "rw", "noexec", "nosuid", "nodev", "":
		default:
			return bad("invalid tmpfs option \"" + opt + "\"")
		}
	}
	return m, nil
}

func tmpfsField(m *ask.Mount, key, value string) string {
	if m.Kind != ask.Tmpfs {
		return "tmpfs-" + key + " needs type=tmpfs"
	}
	if key == "size" {
		n, err := bytesOf("--tmpfs", value)
		if err != nil || n < 0 {
			return "invalid value for size: " + value
		}
		m.TmpfsSize = n
		return ""
	}
	mode, err := strconv.ParseUint(value, 8, 12)
	if err != nil {
		return "invalid value for mode: " + value
	}
	m.TmpfsMode = uint32(mode)
	return ""
}
