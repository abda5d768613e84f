package engine

import (
	"os"
	"path"
	"strings"

	"fief/internal/snapshot/within"
	"fief/internal/volume"
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
// for copies, whether it runs or not. Its memory file systems are empty and not
// there.
func cover(root *os.File, rec record.Container, pair idmap.Pair) []hidden {
	var out []hidden
	for _, m := range rec.Mounts {
		if m.Kind == "tmpfs" {
			continue
		}
		if err := coverOne(root, m, pair); err != nil {
			out = append(out, hidden{path.Clean(m.Target), err})
		}
	}
	return out
}

func coverOne(root *os.File, m record.Mount, pair idmap.Pair) error {
	if m.CreateSrc {
		if err := volume.MakeSource(m.Source); err != nil {
			return err
		}
	}
	err := volume.Cover(root, m, pair)
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	dir, err := volume.IsDir(m)
	if err != nil {
		return err
	}
	if err := within.MakePoint(root, pair, m.Target, dir); err != nil {
		return err
	}
	return volume.Cover(root, m, pair)
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
