package cmdline

import (
	"encoding/csv"
	"path/filepath"
	"strconv"
	"strings"

	"fief/internal/words/ask"
)

// mount parses --mount: comma-separated KEY=VALUE, quoted as in CSV.
func mount(spec string, c Client) (ask.Mount, error) {
	bad := func(why string) (ask.Mount, error) { return ask.Mount{}, invalid("--mount", spec, why) }
	fields, err := csv.NewReader(strings.NewReader(spec)).Read()
	if err != nil {
		return bad(err.Error())
	}
	m := ask.Mount{Kind: ask.Volume, Recursive: true}
	for _, f := range fields { // the type decides what the others mean
		if k, v, _ := strings.Cut(f, "="); strings.EqualFold(strings.TrimSpace(k), "type") {
			m.Kind = ask.MountKind(strings.ToLower(v))
		}
	}
	switch m.Kind {
	case ask.Bind, ask.Volume, ask.Tmpfs, ask.Image:
	default:
		return bad("mount type \"" + string(m.Kind) + "\" is not one of bind, volume, tmpfs, image")
	}
	p := mountParser{m: &m, client: c, seen: map[string]bool{}}
	for _, f := range fields {
		if why := p.field(strings.TrimSpace(f)); why != "" {
			return bad(why)
		}
	}
	if why := p.whole(); why != "" {
		return bad(why)
	}
	return m, nil
}

// mountParser takes the fields of one --mount. Its methods return what is wrong.
type mountParser struct {
	m      *ask.Mount
	client Client
	deep   string // bind-recursive
	seen   map[string]bool
}

// field applies one KEY or KEY=VALUE, in Docker's words and Podman's.
func (p *mountParser) field(field string) string {
	key, value, given := strings.Cut(field, "=")
	label := key == "z" || key == "Z"
	key = strings.ToLower(key)
	if kind, _, _ := strings.Cut(key, "-"); kind != string(p.m.Kind) && (kind == "bind" || kind == "volume" || kind == "tmpfs" || kind == "image") {
		return "cannot mix '" + kind + "-*' options with mount type '" + string(p.m.Kind) + "'"
	}
	if why := p.once(key); why != "" {
		return why
	}
	if found, why := p.flag(key, value, given); found {
		return why
	}
	if !given {
		if label || p.word(key) {
			return ""
		}
		return "invalid field '" + field + "' must be a key=value pair"
	}
	switch key {
	case "type", "consistency":
	case "relabel":
		if value != "shared" && value != "private" {
			return "relabel mount option must be 'private' or 'shared'"
		}
	case "source", "src":
		p.m.Source = value
		if p.m.Kind == ask.Bind && value != "" {
			p.m.Source = p.client.abs(value)
		}
	case "target", "dst", "destination":
		p.m.Target = value
	default:
		return p.option(key, value, field)
	}
	return ""
}

// once refuses what is given twice, as Podman does: which of the two would count is
// nobody's guess.
func (p *mountParser) once(key string) string {
	what := key
	switch key {
	case "volume-label", "volume-opt":
		return ""
	case "src":
		what = "source"
	case "dst", "destination":
		what = "target"
	case "ro", "rw":
		what = "readonly"
	}
	if p.seen[what] {
		return "cannot pass '" + key + "' option more than once"
	}
	p.seen[what] = true
	return ""
}

// word applies a word that -v has as well; false: it has not, or not for this type.
func (p *mountParser) word(word string) bool {
	if p.m.Kind == ask.Tmpfs {
		return p.m.TmpfsWord(word) == nil
	}
	if word == "copy" || word == "bind" || word == "rbind" || p.m.Kind == ask.Image {
		return false
	}
	kind, err := p.m.Word(word)
	return err == nil && kind != "" && kind != "consistency" && p.once("-v "+kind) == ""
}

// flag applies a key that is a truth value, or may come alone.
func (p *mountParser) flag(key, value string, given bool) (found bool, why string) {
	var to *bool
	not := false
	switch key {
	case "readonly", "ro":
		to = &p.m.ReadOnly
	case "rw", "readwrite":
		to, not = &p.m.ReadOnly, true
	case "bind-nonrecursive":
		to, not = &p.m.Recursive, true
	case "bind-create-src", "create-host-path", "bind-create-mountpoint":
		to = &p.m.CreateSrc
	case "volume-nocopy", "nocopy":
		to = &p.m.NoCopy
	case "u", "chown":
		to = &p.m.Chown
	case "idmap":
		var err error
		p.m.Map, err = ask.ParseMountMap(value)
		return true, text(err)
	case "bind-idmap":
		if !given {
			value = ask.MapUserns
		}
		var err error
		p.m.Map, err = ask.ParseBindMap(value)
		return true, text(err)
	default:
		return false, ""
	}
	on := true
	if given {
		var err error
		if on, err = strconv.ParseBool(value); err != nil {
			return true, "invalid value for " + key + ": " + value
		}
	}
	*to = on != not
	if to == &p.m.ReadOnly && !*to && p.m.Kind == ask.Image {
		return true, "an image's files cannot be written: leave out '" + key + "'"
	}
	return true, ""
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// option applies a KEY=VALUE that belongs to one type.
func (p *mountParser) option(key, value, field string) string {
	m := p.m
	switch key {
	case "bind-propagation":
		if !propagation(m, strings.ToLower(value)) {
			return "invalid propagation: " + value
		}
	case "bind-recursive":
		return p.recursive(value)
	case "tmpfs-size", "tmpfs-mode", "tmpfs-uid", "tmpfs-gid", "tmpfs-nr_inodes", "tmpfs-nr_blocks", "tmpfs-huge", "tmpfs-mpol":
		if m.TmpfsWord(strings.TrimPrefix(key, "tmpfs-")+"="+value) != nil {
			return "invalid value for " + key + ": " + value
		}
	case "volume-driver":
		m.Driver = value
	case "volume-label":
		put(&m.Labels, value)
	case "volume-opt":
		put(&m.Options, value)
	case "volume-subpath", "image-subpath", "subpath":
		if m.Kind != ask.Volume && m.Kind != ask.Image {
			return "cannot set option '" + key + "' on mount type '" + string(m.Kind) + "'"
		}
		if !filepath.IsLocal(value) {
			return key + " must be a relative path within the " + string(m.Kind)
		}
		m.Subpath = value
	default:
		return "unexpected key '" + key + "' in '" + field + "'"
	}
	return ""
}

func put(to *map[string]string, pair string) {
	if *to == nil {
		*to = map[string]string{}
	}
	k, v, _ := strings.Cut(pair, "=")
	(*to)[k] = v
}

// recursive reads bind-recursive=, in the words of docker-run(1).
func (p *mountParser) recursive(value string) string {
	switch value {
	case "enabled":
		p.m.Recursive = true
	case "disabled":
		p.m.Recursive = false
	case "writable", "readonly":
		p.m.ReadOnlyTop = value == "writable"
	default:
		return "invalid value for bind-recursive: " + value + " (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
	}
	p.deep = value
	return ""
}

// whole checks what the fields are together.
func (p *mountParser) whole() string {
	m := p.m
	switch {
	case m.Target == "":
		return "target is required"
	case m.Kind == ask.Bind && m.Source == "":
		return "source is required for a bind mount"
	case m.Kind == ask.Image && m.Source == "":
		return "source is required for an image mount"
	case m.Kind == ask.Tmpfs && m.Source != "":
		return "a tmpfs has no source"
	case m.Kind == ask.Volume && m.Source == "" && m.Subpath != "":
		return "must not set Subpath when using anonymous volumes"
	case (m.Kind == ask.Tmpfs || m.Kind == ask.Image) && (m.Map != nil || m.Chown):
		return "only binds and volumes have files whose ids can be changed"
	case (p.deep == "writable" || p.deep == "readonly") && !m.ReadOnly:
		return "option 'bind-recursive=" + p.deep + "' requires 'readonly' to be specified in conjunction"
	case p.deep == "readonly" && m.Propagation != "rprivate":
		return "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
	}
	if m.Kind == ask.Volume && m.Source != "" {
		if err := ask.CheckVolumeName(m.Source); err != nil {
			return err.Error()
		}
	}
	return target(m)
}
