package main

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
)

// spellMaps turns crun's spelling of a mount's id maps, which podman sends
// ("idmap=uids=0-1-10#10-20-1;gids=@0-0-10", crun(1), idmap mount options), into
// the specification's: uidMappings, gidMappings and the option "idmap".
func spellMaps(s *specs.Spec) error {
	for i := range s.Mounts {
		m := &s.Mounts[i]
		for k, option := range m.Options {
			name, text, given := strings.Cut(option, "=")
			if name != "idmap" && name != "ridmap" || !given {
				continue
			}
			if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
				return fault.New(fault.Invalid, "bind", m.Destination, "it has two id maps", "leave one out")
			}
			var err error
			if m.UIDMappings, m.GIDMappings, err = parseMaps(text, s.Linux.UIDMappings, s.Linux.GIDMappings); err != nil {
				return err
			}
			m.Options[k] = name
		}
	}
	return nil
}

// parseMaps reads maps of a mount; uids and gids are the container's, which those
// that begin with @ are relative to.
func parseMaps(text string, uids, gids []specs.LinuxIDMapping) (u, g []specs.LinuxIDMapping, err error) {
	for part := range strings.SplitSeq(text, ";") {
		name, list, _ := strings.Cut(part, "=")
		switch {
		case name == "uids" && u == nil:
			u, err = parseMap(list, uids)
		case name == "gids" && g == nil:
			g, err = parseMap(list, gids)
		default:
			err = fault.New(fault.Invalid, "use id map", strconv.Quote(part), "it is neither uids= nor gids=, or there are two of them", "")
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if (u == nil) != (g == nil) {
		return nil, nil, fault.New(fault.Invalid, "use id map", strconv.Quote(text), "uids and gids go together", "")
	}
	return u, g, nil
}

// parseMap reads ranges, "FIRST-SECOND-LENGTH" with # between them: ids from FIRST
// on in the file system are those from SECOND on of the host.
func parseMap(list string, own []specs.LinuxIDMapping) ([]specs.LinuxIDMapping, error) {
	var out []specs.LinuxIDMapping
	for text := range strings.SplitSeq(list, "#") {
		bad := func(why string) error {
			return fault.New(fault.Invalid, "use id map", strconv.Quote(text), why, "a range is FIRST-SECOND-LENGTH")
		}
		plain, relative := strings.CutPrefix(text, "@")
		words := strings.Split(plain, "-")
		if len(words) != 3 || len(out) == maxList {
			return nil, bad("not three numbers, or too many of them")
		}
		var n [3]uint32
		for i, w := range words {
			v, err := strconv.ParseUint(w, 10, 32)
			if err != nil {
				return nil, bad("not a number: " + strconv.Quote(w))
			}
			n[i] = uint32(v)
		}
		if n[2] == 0 || n[0]+n[2]-1 < n[0] || n[1]+n[2]-1 < n[1] {
			return nil, bad("it is empty, or goes beyond the last id")
		}
		if relative {
			host, ok := hostRange(own, n[1], n[2])
			if !ok {
				return nil, bad("the container's user namespace has no one range with these ids")
			}
			n[1] = host
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: n[0], HostID: n[1], Size: n[2]})
	}
	return out, nil
}

// hostRange translates ids of a container that lie in one range of its map.
func hostRange(own []specs.LinuxIDMapping, first, size uint32) (host uint32, ok bool) {
	for _, m := range own {
		if first >= m.ContainerID && uint64(first)+uint64(size) <= uint64(m.ContainerID)+uint64(m.Size) {
			return m.HostID + (first - m.ContainerID), true
		}
	}
	return 0, false
}
