package hostids

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/words/record"
)

// Where other engines keep what they know, unless they are told otherwise.
const (
	kubeletRoot    = "/var/lib/kubelet"
	kubeletPods    = kubeletRoot + "/pods"
	containersRoot = "/var/lib/containers/storage"
	containersRun  = "/run/containers/storage"
	dockerRoot     = "/var/lib/docker"
	lxcRoot        = "/var/lib/lxc"
	machinesRoot   = "/var/lib/machines"
)

const (
	maxState   = 64 << 20 // bytes of a list of containers: 100000 of them fit
	maxNote    = 1 << 20  // bytes of any other file of an engine
	maxEntries = 1 << 16  // of a directory: there are no more ranges of 65536 ids
	remapIDs   = 65536
)

// readEngines claims what other engines have noted. Each of them may be absent;
// what cannot be understood claims nothing and is told.
func (f Files) readEngines(out *Facts) {
	f.readKubelet(out)
	f.readContainersStorage(out)
	f.readDocker(out)
	f.readLXC(out)
	f.readIncus(out)
	f.readMachines(out)
}

// state reads a file of an engine, which is never a link; false when there is
// none.
func (f Files) state(out *Facts, path string, limit int64) ([]byte, bool) {
	text, err := readFile(path, limit, unix.O_NOFOLLOW)
	if absent(err) {
		return nil, false
	}
	if err != nil {
		out.warn("ids in %s are not known: %v", path, err)
		return nil, false
	}
	return text, true
}

// entries lists a directory of an engine.
func (f Files) entries(out *Facts, dir string) []os.DirEntry {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if absent(err) {
		return nil
	}
	if err != nil {
		out.warn("ids in %s are not known: %v", dir, err)
		return nil
	}
	defer d.Close()
	list, err := d.ReadDir(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		out.warn("ids in %s are not all known: %v", dir, err)
	}
	return list
}

func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}

// engine adds a claim of an engine for uids, gids or both.
func (f *Facts) engine(holder, source string, uid, gid bool, c Claim) {
	c.UID, c.GID, c.Kind, c.Holder, c.Source = uid, gid, record.IDEngine, holder, source
	f.Claims = append(f.Claims, c)
}

// readKubelet claims the ranges that a kubelet has noted for its pods
// (kubernetes, pkg/kubelet/userns/userns_manager.go). Without a range of user
// kubelet in both files it takes its pods' ranges at random from all ids from
// 65536 on: to claim those would leave nothing to anybody else.
func (f Files) readKubelet(out *Facts) {
	if _, err := os.Stat(f.below(kubeletRoot)); err != nil {
		return
	}
	if !slices.Contains(out.Owners, "kubelet") {
		out.warn("the kubelet has no ids of its own and may give pods those of any container: add a line kubelet:FIRST:COUNT, multiples of 65536, to %s and %s",
			f.SubUID, f.SubGID)
	}
	dir := f.below(kubeletPods)
	for _, pod := range f.entries(out, dir) {
		path := filepath.Join(dir, pod.Name(), "userns")
		text, ok := f.state(out, path, maxNote)
		if !ok || len(text) == 0 {
			continue
		}
		list, err := parsePod(text)
		if err != nil {
			out.warn("ids in %s are not known: %v", path, err)
		}
		for _, c := range list {
			out.engine("kubelet, pod "+pod.Name(), path, c.UID, c.GID, c)
		}
	}
}

// parsePod reads the file userns of a kubelet's pod.
func parsePod(text []byte) ([]Claim, error) {
	type span struct {
		HostID      uint64 `json:"hostId"`
		ContainerID uint64 `json:"containerId"`
		Length      uint64 `json:"length"`
	}
	var pod struct {
		UIDs []span `json:"uidMappings"`
		GIDs []span `json:"gidMappings"`
	}
	if err := json.Unmarshal(text, &pod); err != nil {
		return nil, err
	}
	var out []Claim
	for i, spans := range [2][]span{pod.UIDs, pod.GIDs} {
		for _, s := range spans {
			if c, ok := mapping(s.ContainerID, s.HostID, s.Length); ok {
				c.UID, c.GID = i == 0, i == 1
				out = append(out, c)
			}
		}
	}
	return out, nil
}

// readDocker claims what a Docker with userns-remap has used: its state is
// below a directory UID.GID of its data root, named by the host ids of
// container root (moby, daemon/daemon_unix.go, setupDaemonRoot). How many ids
// the user has is not noted there; 65536 are what useradd and Docker give.
func (f Files) readDocker(out *Facts) {
	root := f.below(dockerRoot)
	if text, ok := f.state(out, f.below("/etc/docker/daemon.json"), maxNote); ok {
		var config struct {
			Root  string `json:"data-root"`
			Graph string `json:"graph"` // its name until 2017
		}
		if err := json.Unmarshal(text, &config); err != nil {
			out.warn("where Docker keeps its ids is not known: /etc/docker/daemon.json: %v", err)
		}
		for _, dir := range []string{config.Graph, config.Root} {
			if filepath.IsAbs(dir) {
				root = f.below(dir)
			}
		}
	}
	for _, entry := range f.entries(out, root) {
		first, second, ok := strings.Cut(entry.Name(), ".")
		uid, err1 := strconv.ParseUint(first, 10, 32)
		gid, err2 := strconv.ParseUint(second, 10, 32)
		if !ok || err1 != nil || err2 != nil || !entry.IsDir() {
			continue
		}
		source := filepath.Join(root, entry.Name())
		if c, ok := mapping(0, uid, remapIDs); ok {
			out.engine("docker", source, true, false, c)
		}
		if c, ok := mapping(0, gid, remapIDs); ok {
			out.engine("docker", source, false, true, c)
		}
	}
}

// readLXC claims the maps in the configurations of containers
// (lxc.container.conf(5)). Files that those include are not read.
func (f Files) readLXC(out *Facts) {
	dir := f.below(lxcRoot)
	for _, entry := range f.entries(out, dir) {
		path := filepath.Join(dir, entry.Name(), "config")
		text, ok := f.state(out, path, maxNote)
		if !ok {
			continue
		}
		for _, c := range parseLXC(string(text)) {
			out.engine("lxc, container "+entry.Name(), fmt.Sprintf("%s:%s", path, c.Source), c.UID, c.GID, c)
		}
	}
}

// parseLXC returns the claims of a configuration, with the line as the source.
func parseLXC(text string) []Claim {
	var out []Claim
	number := 0
	for line := range strings.Lines(text) {
		number++
		key, value, _ := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); key != "lxc.idmap" && key != "lxc.id_map" {
			continue
		}
		var kind string
		var in, host, n uint64
		if _, err := fmt.Sscan(value, &kind, &in, &host, &n); err != nil {
			continue
		}
		c, ok := mapping(in, host, n)
		c.UID, c.GID = kind == "u" || kind == "b", kind == "g" || kind == "b"
		c.Source = strconv.Itoa(number)
		if ok && (c.UID || c.GID) {
			out = append(out, c)
		}
	}
	return out
}

// readIncus claims the range that incus and LXD give to all their containers
// when root has no line in subuid and subgid (incus,
// shared/idmap/set_load.go). What they do with lines is covered by these.
func (f Files) readIncus(out *Facts) {
	if slices.Contains(out.Owners, "root") {
		return
	}
	for _, dir := range []string{"/var/lib/incus", "/var/lib/lxd", "/var/snap/lxd/common/lxd"} {
		if st, err := os.Stat(f.below(dir)); err == nil && st.IsDir() {
			out.engine(filepath.Base(dir), f.below(dir), true, true, Claim{From: 1000000, To: 1001000000})
		}
	}
}

// readMachines claims the ranges of directories that systemd-nspawn runs
// containers from: with --private-users=pick or yes, the upper half of the owner
// of the top directory is the range (systemd-nspawn(1)). A machine that is
// mapped when it is mounted has no owner of its own, and is seen while it runs.
func (f Files) readMachines(out *Facts) {
	dir := f.below(machinesRoot)
	for _, entry := range f.entries(out, dir) {
		path := filepath.Join(dir, entry.Name())
		var st unix.Stat_t
		if !entry.IsDir() || unix.Lstat(path, &st) != nil {
			continue
		}
		if base := uint64(st.Uid) &^ 0xffff; base != 0 {
			out.engine("systemd-nspawn, machine "+entry.Name(), path, true, true, Claim{From: base, To: base + remapIDs})
		}
	}
}
