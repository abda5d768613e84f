package hostids

import (
	"bytes"
	"cmp"
	"encoding/json"
	"path/filepath"
	"strings"
)

// readContainersStorage claims the maps of the containers of Podman, Buildah
// and CRI-O, running or not: they share one store. Those of containers that end
// with the machine may be listed in the run directory (storage.conf(5),
// transient_store).
func (f Files) readContainersStorage(out *Facts) {
	graph, run := f.containersRoots(out)
	seen := map[string]bool{}
	for _, dir := range []string{graph, run} {
		for _, entry := range f.entries(out, dir) {
			if !strings.HasSuffix(entry.Name(), "-containers") {
				continue
			}
			for _, name := range []string{"containers.json", "volatile-containers.json"} {
				path := filepath.Join(dir, entry.Name(), name)
				text, ok := f.state(out, path, maxState)
				if !ok || seen[path] {
					continue
				}
				seen[path] = true
				list, err := parseStorage(text)
				if err != nil {
					out.warn("ids in %s are not known: %v", path, err)
				}
				for _, c := range list {
					out.engine(c.Holder, path, c.UID, c.GID, c)
				}
			}
		}
	}
}

// containersRoots returns where the store is, by storage.conf(5).
func (f Files) containersRoots(out *Facts) (graph, run string) {
	graph, run = containersRoot, containersRun
	for _, path := range []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"} {
		text, err := readFile(f.below(path), maxNote, 0)
		if absent(err) {
			continue
		}
		if err != nil {
			out.warn("where Podman keeps its ids is not known: %s: %v", f.below(path), err)
		}
		set := parseStorageConf(string(text))
		graph, run = cmp.Or(set["graphroot"], graph), cmp.Or(set["runroot"], run)
		break // the file of /etc stands instead of the vendor's
	}
	return f.below(graph), f.below(run)
}

// parseStorageConf returns the absolute paths that are assigned to keys. Only
// plain assignments of one line are understood, which is what the file consists
// of.
func parseStorageConf(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, "=")
		value = strings.TrimSpace(value)
		if value == "" || value[0] != '"' && value[0] != '\'' {
			continue
		}
		value, _, ok := strings.Cut(value[1:], value[:1])
		if ok && filepath.IsAbs(value) {
			out[strings.TrimSpace(key)] = value
		}
	}
	return out
}

// parseStorage reads containers.json of containers/storage (containers.go,
// Container; pkg/idtools/idtools.go, IDMap).
func parseStorage(text []byte) ([]Claim, error) {
	type span struct {
		ContainerID uint64 `json:"container_id"`
		HostID      uint64 `json:"host_id"`
		Size        uint64 `json:"size"`
	}
	var list []struct {
		ID    string   `json:"id"`
		Names []string `json:"names"`
		UIDs  []span   `json:"uidmap"`
		GIDs  []span   `json:"gidmap"`
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	var out []Claim
	for _, container := range list {
		name := container.ID[:min(12, len(container.ID))]
		if len(container.Names) > 0 {
			name = container.Names[0]
		}
		for i, spans := range [2][]span{container.UIDs, container.GIDs} {
			for _, s := range spans {
				if c, ok := mapping(s.ContainerID, s.HostID, s.Size); ok {
					c.UID, c.GID, c.Holder = i == 0, i == 1, "podman, container "+name
					out = append(out, c)
				}
			}
		}
	}
	return out, nil
}
