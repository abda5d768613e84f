package docker

import (
	"bytes"
	"encoding/json"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// mounts gathers all ways of asking for a mount, in Docker's order: Binds,
// Mounts, Tmpfs, and the anonymous volumes of Config.Volumes.
func (h *hostBody) mounts(anonymous map[string]struct{}) ([]ask.Mount, error) {
	var out []ask.Mount
	for _, bind := range h.Binds {
		m, err := parseBind(bind)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	for i := range h.Mounts {
		m, err := h.Mounts[i].ask()
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	for _, target := range slices.Sorted(maps.Keys(h.Tmpfs)) {
		m, err := parseTmpfs(target, h.Tmpfs[target])
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	taken := map[string]bool{}
	for _, m := range out {
		if taken[m.Target] {
			return nil, invalid("Duplicate mount point: %s", m.Target)
		}
		taken[m.Target] = true
	}
	for _, target := range slices.Sorted(maps.Keys(anonymous)) {
		clean, err := mountTarget(target, target)
		if err != nil {
			return nil, err
		}
		if !taken[clean] {
			out = append(out, ask.Mount{Kind: ask.Volume, Target: clean})
		}
	}
	return out, nil
}

// parseBind reads SOURCE:TARGET[:MODE], or TARGET alone for an anonymous
// volume. A source with a slash in front is a host path, else a volume's name.
func parseBind(raw string) (ask.Mount, error) {
	parts := strings.Split(raw, ":")
	m := ask.Mount{Kind: ask.Bind, Recursive: true, CreateSrc: true}
	switch len(parts) {
	case 1:
		m.Target = parts[0]
	case 2, 3:
		m.Source, m.Target = parts[0], parts[1]
		if m.Source == "" {
			return m, invalid("invalid volume specification: '%s'", raw)
		}
	default:
		return m, invalid("invalid volume specification: '%s'", raw)
	}
	if len(parts) == 2 && !path.IsAbs(m.Target) && (&ask.Mount{}).Words(m.Target) == nil {
		return m, invalid("invalid volume specification: '%s'", raw) // TARGET:MODE
	}
	var err error
	if m.Target, err = mountTarget(raw, m.Target); err != nil {
		return m, err
	}
	if !path.IsAbs(m.Source) {
		m.Kind, m.Recursive, m.CreateSrc = ask.Volume, false, false
		m.Short = m.Source != ""
		if m.Short {
			if err := ask.CheckVolumeName(m.Source); err != nil {
				return m, err
			}
		}
	} else {
		m.Source = path.Clean(m.Source)
	}
	if len(parts) == 3 {
		return m, m.Words(parts[2])
	}
	return m, nil
}

func mountTarget(raw, target string) (string, error) {
	if !path.IsAbs(target) {
		return "", invalid("invalid volume specification: '%s': invalid mount config: invalid mount path: '%s' mount path must be absolute", raw, target)
	}
	clean := path.Clean(target)
	if clean == "/" {
		return "", invalid("invalid volume specification: '%s': invalid specification: destination can't be '/'", raw)
	}
	if strings.ContainsRune(raw+target, 0) {
		return "", invalid("invalid volume specification: %q", raw)
	}
	return clean, nil
}

// ask reads one entry of HostConfig.Mounts. What is wrong with it is said in
// Docker's words.
func (b *mountBody) ask() (ask.Mount, error) {
	m, err := b.parse()
	if fault.Is(err, fault.Invalid) {
		err = invalid("invalid mount config for type %q: %v", b.Type, err)
	}
	return m, err
}

func (b *mountBody) parse() (ask.Mount, error) {
	m := ask.Mount{Source: b.Source, Target: path.Clean(b.Target), ReadOnly: b.ReadOnly}
	switch {
	case b.Target == "":
		return m, invalid("field Target must not be empty")
	case !path.IsAbs(b.Target):
		return m, invalid("invalid mount path: '%s' mount path must be absolute", b.Target)
	case m.Target == "/":
		return m, invalid("invalid specification: destination can't be '/'")
	case strings.ContainsRune(b.Source+b.Target, 0):
		return m, invalid("invalid specification: %q", b.Source+":"+b.Target)
	}
	switch b.Type {
	case mount.TypeBind:
		return b.bind(m)
	case mount.TypeVolume:
		return b.volume(m)
	case mount.TypeTmpfs:
		return b.tmpfs(m)
	case mount.TypeImage:
		return b.image(m)
	case mount.TypeNamedPipe, mount.TypeCluster:
		return m, refuse("mount type "+string(b.Type), "use bind, volume, tmpfs or image")
	}
	return m, invalid("mount type unknown")
}

func (b *mountBody) bind(m ask.Mount) (ask.Mount, error) {
	m.Kind, m.Recursive = ask.Bind, true
	if b.Source == "" {
		return m, invalid("field Source must not be empty")
	}
	if !path.IsAbs(b.Source) {
		return m, invalid("invalid mount path: '%s' mount path must be absolute", b.Source)
	}
	m.Source = path.Clean(b.Source)
	if b.VolumeOptions != nil || b.TmpfsOptions != nil || b.ImageOptions != nil {
		return m, invalid("field of another mount type must not be specified")
	}
	o := b.BindOptions
	if o == nil {
		return m, nil
	}
	if err := b.bindMap(&m); err != nil {
		return m, err
	}
	if o.ReadOnlyForceRecursive && !m.ReadOnly {
		return m, invalid("mount source must be read-only for ReadOnlyForceRecursive")
	}
	m.ReadOnlyTop = o.ReadOnlyNonRecursive && m.ReadOnly
	if o.Propagation != "" && !slices.Contains(mount.Propagations, o.Propagation) {
		return m, invalid("invalid propagation mode: %s", o.Propagation)
	}
	m.Recursive, m.CreateSrc, m.Propagation = !o.NonRecursive, o.CreateMountpoint, string(o.Propagation)
	return m, nil
}

func (b *mountBody) volume(m ask.Mount) (ask.Mount, error) {
	m.Kind = ask.Volume
	if m.Source != "" {
		if err := ask.CheckVolumeName(m.Source); err != nil {
			return m, err
		}
	}
	if b.BindOptions != nil || b.TmpfsOptions != nil || b.ImageOptions != nil {
		return m, invalid("field of another mount type must not be specified")
	}
	o := b.VolumeOptions
	if o == nil {
		return m, nil
	}
	m.NoCopy, m.Labels = o.NoCopy, o.Labels
	if o.DriverConfig != nil {
		m.Driver, m.Options = o.DriverConfig.Name, o.DriverConfig.Options
	}
	if m.Driver != "" && m.Driver != ask.LocalDriver {
		return m, refuse("VolumeOptions.DriverConfig "+short(m.Driver), "the only volume driver is local")
	}
	if m.Source == "" && o.Subpath != "" {
		return m, invalid("must not set Subpath when using anonymous volumes")
	}
	return b.below(m, o.Subpath)
}

// below notes the part of a volume or image that is meant.
func (b *mountBody) below(m ask.Mount, subpath string) (ask.Mount, error) {
	m.Subpath = subpath
	if subpath != "" && !filepath.IsLocal(subpath) {
		return m, invalid("Subpath: must be a relative path within the %s", b.Type)
	}
	return m, nil
}

// image reads a mount of an image's files, which nobody can write to.
func (b *mountBody) image(m ask.Mount) (ask.Mount, error) {
	m.Kind, m.ReadOnly = ask.Image, true
	if b.Source == "" {
		return m, invalid("field Source must not be empty")
	}
	if b.BindOptions != nil || b.TmpfsOptions != nil || b.VolumeOptions != nil {
		return m, invalid("field of another mount type must not be specified")
	}
	if b.ImageOptions == nil {
		return m, nil
	}
	return b.below(m, b.ImageOptions.Subpath)
}

// idMapping is BindOptions.IDMapping of moby#53368.
type idMapping struct {
	Source string
	User   string `json:",omitempty"`
}

// bindMap reads whose ids a bind shows.
func (b *mountBody) bindMap(m *ask.Mount) (err error) {
	raw := b.BindOptions.IDMapping
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	var want idMapping
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&want); err != nil {
		return invalid("BindOptions.IDMapping: %v", err)
	}
	if want.Source == "" {
		return invalid("BindOptions.IDMapping: Source must not be empty")
	}
	m.Map, err = ask.MakeBindMap(want.Source, want.User, false)
	return err
}

func (b *mountBody) tmpfs(m ask.Mount) (ask.Mount, error) {
	m.Kind = ask.Tmpfs
	if b.Source != "" {
		return m, invalid("field Source must not be specified")
	}
	o := b.TmpfsOptions
	if o == nil {
		return m, nil
	}
	if o.SizeBytes < 0 || o.Mode&^0o7777 != 0 {
		return m, invalid("size %d, mode %o", o.SizeBytes, uint32(o.Mode))
	}
	m.TmpfsSize, m.TmpfsMode = o.SizeBytes, uint32(o.Mode)
	for _, opt := range o.Options {
		if err := m.TmpfsWord(strings.Join(opt, "=")); err != nil {
			return m, err
		}
	}
	return m, nil
}

// parseTmpfs reads an entry of HostConfig.Tmpfs, like "rw,size=64m,mode=1777".
func parseTmpfs(target, options string) (ask.Mount, error) {
	clean, err := mountTarget(target, target)
	m := ask.Mount{Kind: ask.Tmpfs, Target: clean}
	if err != nil || options == "" {
		return m, err
	}
	for word := range strings.SplitSeq(options, ",") {
		if err := m.TmpfsWord(word); err != nil {
			return m, err
		}
	}
	return m, nil
}

// tmpfsOptions is what parseTmpfs reads.
func tmpfsOptions(m record.Mount) string {
	var words []string
	if m.ReadOnly {
		words = append(words, "ro")
	}
	if m.TmpfsExec {
		words = append(words, "exec")
	}
	if m.TmpfsSize > 0 {
		words = append(words, "size="+decimal(m.TmpfsSize))
	}
	if m.TmpfsMode > 0 {
		words = append(words, "mode="+strconv.FormatUint(uint64(m.TmpfsMode), 8))
	}
	return strings.Join(append(words, m.TmpfsOptions...), ",")
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
