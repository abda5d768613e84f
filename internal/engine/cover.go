package engine

import (
	"os"
	"path"
	"slices"
	"strings"

	"fief/internal/snapshot/within"
	"fief/internal/spec"
	"fief/internal/volume"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// hidden is a mount of a container that does not run which cannot be shown: what
// a copy did there would be out of sight when the container runs.
type hidden struct {
	target string
	err    error
}

// cover shows what is bound into a container at its place in root, as Docker does
// for copies, whether it runs or not: from the root downwards, so that nothing hides
// what is below it. Its memory file systems are empty and not there. Volumes stay
// in use until freeVolumes for coverer.
func (e *Engine) cover(root *os.File, rec record.Container, pair idmap.Pair) []hidden {
	var out []hidden
	mounts := slices.Clone(rec.Mounts)
	slices.SortStableFunc(mounts, func(a, b record.Mount) int { return strings.Count(a.Target, "/") - strings.Count(b.Target, "/") })
	for _, m := range mounts {
		if m.Kind == string(ask.Tmpfs) {
			continue
		}
		if err := e.coverOne(root, rec, m, pair); err != nil {
			out = append(out, hidden{path.Clean(m.Target), err})
		}
	}
	return out
}

// coverer is the name under which copies use the volumes of a container that does
// not run.
func coverer(rec record.Container) string { return "copy-" + rec.ID }

func (e *Engine) coverOne(root *os.File, rec record.Container, m record.Mount, pair idmap.Pair) error {
	if m.Kind == string(ask.Volume) {
		if err := e.enterVolume(rec, m, coverer(rec)); err != nil {
			return err
		}
	}
	u := mountUser{pair: pair, root: root}
	if m.Map != nil || m.Chown {
		var err error
		if u.uid, u.gid, _, _, err = spec.LookupUser(root, rec.User, rec.Groups); err != nil {
			return err
		}
	}
	m.Ready = true // owners are changed by a start alone
	f, err := e.detached(rec, m, u)
	if err != nil {
		return err
	}
	defer f.Close()
	err = volume.Cover(root, f, m)
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	dir, err := volume.IsDir(f)
	if err != nil {
		return err
	}
	if err := within.MakePoint(root, pair, m.Target, dir); err != nil {
		return err
	}
	return volume.Cover(root, f, m)
}

// reach refuses a path at or below a mount that is hidden.
func (p *place) reach(unsafePath string) error {
	name := path.Clean("/" + unsafePath)
	for _, h := range p.hidden {
		if name == h.target || strings.HasPrefix(name, strings.TrimSuffix(h.target, "/")+"/") {
			return fault.Wrap(fault.Conflict, "show", h.target, h.err, "") // NotFound would be the file's
		}
	}
	return nil
}
