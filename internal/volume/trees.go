package volume

import (
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
)

// Trees are the directories, or single files, that a bind of source shows, as
// the host names them: source with symbolic links resolved and, when the bind is
// recursive, what is mounted below it now. One that cannot be resolved is
// returned as it is.
func Trees(source string, recursive bool) []string {
	root, err := filepath.EvalSymlinks(source)
	if err != nil {
		return []string{source}
	}
	out := []string{root}
	if !recursive {
		return out
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	if err != nil {
		return out
	}
	for _, m := range mounts {
		if !slices.Contains(out, m.Mountpoint) {
			out = append(out, m.Mountpoint)
		}
	}
	return out
}
