package cmdline

import (
	"path"
	"slices"
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
	r.Ask.VolumeDriver = o.volumeDriver
	for _, from := range o.volumesFrom {
		v, err := ask.ParseVolumesFrom(from)
		if err != nil {
			return invalid("--volumes-from", from, err.Error())
		}
		r.Ask.VolumesFrom = append(r.Ask.VolumesFrom, v)
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
		if spec == "" {
			return ask.Mount{}, conflict("invalid empty volume spec")
		}
	case 2, 3:
		m.Source, m.Target = parts[0], parts[1]
		if slices.Contains(parts, "") {
			return bad("empty section between colons")
		}
	default:
		return bad("too many colons")
	}
	if strings.HasPrefix(m.Source, "/") || strings.HasPrefix(m.Source, ".") {
		m.Kind, m.CreateSrc, m.Source = ask.Bind, true, c.abs(m.Source)
	} else if m.Source != "" {
		if err := ask.CheckVolumeName(m.Source); err != nil {
			return bad(err.Error())
		}
		m.Short = true
	}
	if why := target(&m); why != "" {
		return bad(why)
	}
	if len(parts) < 3 {
		return m, nil
	}
	return m, wrap(m.Words(parts[2]), bad)
}

// wrap puts an error of an option into the words of its flag.
func wrap(err error, bad func(why string) (ask.Mount, error)) error {
	if err == nil {
		return nil
	}
	_, err = bad(err.Error())
	return err
}

func propagation(m *ask.Mount, word string) bool {
	switch word {
	case "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable":
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

// tmpfs parses --tmpfs: TARGET[:OPTIONS].
func tmpfs(spec string, _ Client) (ask.Mount, error) {
	bad := func(why string) (ask.Mount, error) { return ask.Mount{}, invalid("--tmpfs", spec, why) }
	where, opts, _ := strings.Cut(spec, ":")
	m := ask.Mount{Kind: ask.Tmpfs, Target: where}
	if why := target(&m); why != "" {
		return bad(why)
	}
	for word := range strings.SplitSeq(opts, ",") {
		if word == "" {
			continue
		}
		if err := m.TmpfsWord(word); err != nil {
			return bad(err.Error())
		}
	}
	return m, nil
}
