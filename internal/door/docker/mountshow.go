package docker

import (
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"fief/internal/words/record"
)

// addMount puts a mount where a client would have asked for it. What the image or
// another container asked for nobody did.
func addMount(h *hostConfig, m record.Mount) {
	plain := m.Recursive && m.Map == nil && !m.ReadOnlyTop && !strings.Contains(m.Source+m.Target, ":")
	switch {
	case m.Implied, m.Kind == "volume" && anonymous(m) && plain && m.Subpath == "":
		return
	case m.Kind == "tmpfs":
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		h.Tmpfs[m.Target] = tmpfsOptions(m)
	case m.Kind == "bind" && plain:
		h.Binds = append(h.Binds, m.Source+":"+m.Target+suffix(m))
	case m.Kind == "volume" && m.Short:
		h.Binds = append(h.Binds, m.Name+":"+m.Target+suffix(m))
	default:
		h.Mounts = append(h.Mounts, mountSpec(m))
	}
}

// mountShown is an entry of HostConfig.Mounts, with whose ids a bind shows.
type mountShown struct {
	mount.Mount
	BindOptions *bindShown `json:",omitempty"`
}

type bindShown struct {
	mount.BindOptions
	IDMapping *idMapping `json:",omitempty"`
}

func mountSpec(m record.Mount) mountShown {
	spec := mountShown{Mount: mount.Mount{Type: mount.Type(m.Kind), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}}
	switch m.Kind {
	case "bind":
		spec.BindOptions = &bindShown{BindOptions: mount.BindOptions{Propagation: mount.Propagation(m.Propagation), NonRecursive: !m.Recursive, ReadOnlyNonRecursive: m.ReadOnlyTop}}
		if m.Map != nil { // "custom" has no place in the API: asked for again it is refused, not left out
			spec.BindOptions.IDMapping = &idMapping{Source: m.Map.Kind, User: m.Map.User}
		}
	case "volume":
		spec.Source = m.Name
		if m.NoCopy || m.Subpath != "" {
			spec.VolumeOptions = &mount.VolumeOptions{NoCopy: m.NoCopy, Subpath: m.Subpath}
		}
	case "image":
		if m.Subpath != "" {
			spec.ImageOptions = &mount.ImageOptions{Subpath: m.Subpath}
		}
	}
	return spec
}

func suffix(m record.Mount) string {
	if mode := bindMode(m); mode != "" {
		return ":" + mode
	}
	return ""
}

// bindMode is the third part of -v.
func bindMode(m record.Mount) string {
	var words []string
	for _, w := range []struct {
		on   bool
		word string
	}{
		{m.ReadOnly, "ro"}, {m.Propagation != "", m.Propagation}, {m.NoCopy && m.Kind == "volume" && !m.Implied, "nocopy"}, {m.Chown, "U"},
		{m.NoExec, "noexec"}, {m.NoSuid, "nosuid"}, {m.NoDev, "nodev"},
	} {
		if w.on {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ",")
}

func mountPoints(c record.Container) []container.MountPoint {
	out := []container.MountPoint{}
	for _, m := range c.Mounts {
		p := container.MountPoint{
			Type: mount.Type(m.Kind), Name: m.Name, Source: m.Source, Destination: m.Target, Driver: m.Driver,
			Mode: bindMode(m), RW: !m.ReadOnly, Propagation: mount.Propagation(m.Propagation),
		}
		switch m.Kind {
		case "bind":
			if p.Propagation == "" {
				p.Propagation = mount.PropagationRPrivate
			}
		case "volume":
			if p.Mode == "" {
				p.Mode = "z" // as Docker shows a volume without a mode
			}
		}
		out = append(out, p)
	}
	return out
}
