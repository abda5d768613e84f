package idpool

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// poolUser is the owner of the lines in subuid and subgid that, when present,
// are the pool.
const poolUser = "fief"

// host reads what the host says about its ids.
type host struct{ cfg Config }

// signature tells whether one of the four files has changed.
type signature [4]struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func (h host) files() [4]string {
	return [4]string{h.cfg.SubUID, h.cfg.SubGID, h.cfg.Passwd, h.cfg.Group}
}

// signature costs four stat(2). A file that cannot be looked at looks like one
// that is missing; reading it says what is wrong.
func (h host) signature() signature {
	var out signature
	for i, path := range h.files() {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			continue
		}
		out[i].dev, out[i].ino, out[i].size = st.Dev, st.Ino, st.Size
		out[i].mtime, out[i].ctime = st.Mtim, st.Ctim
	}
	return out
}

// facts is what the files of the host say.
type facts struct {
	taken extents // ids given to others
	own   extents // ids of the pool's user
	named bool    // the pool's user has a line: an administrator wants nothing else used
}

func (h host) read() (facts, error) {
	all, err := h.accounts()
	if err != nil {
		return facts{}, err
	}
	var own [2][]extent
	var out facts
	for i, path := range [2]string{h.cfg.SubUID, h.cfg.SubGID} {
		lines, err := readSub(path)
		if err != nil {
			return facts{}, err
		}
		for _, line := range lines {
			if line.owner != poolUser {
				all = append(all, line.ids)
				continue
			}
			own[i] = append(own[i], line.ids)
			out.named = true
		}
	}
	out.taken = union(all)
	out.own = union(own[0]).intersect(union(own[1]))
	return out, nil
}

// accounts returns the ids of users and groups.
func (h host) accounts() ([]extent, error) {
	var out []extent
	for _, path := range [2]string{h.cfg.Passwd, h.cfg.Group} {
		text, err := readAccounts(path)
		if err != nil {
			return nil, err
		}
		for _, a := range parseAccounts(text) {
			out = append(out, extent{uint64(a.id), uint64(a.id) + 1})
		}
	}
	return out, nil
}

// live returns the ids that processes use: the owners of processes, and what
// the maps of their user namespaces hold. Each namespace is read once.
func (h host) live() (extents, error) {
	entries, err := os.ReadDir(h.cfg.Proc)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "look for ids in use in", h.cfg.Proc, err, "")
	}
	seen := map[string]bool{}
	if own, err := os.Readlink(h.cfg.Proc + "/self/ns/user"); err == nil {
		seen[own] = true
	}
	var out []extent
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		dir := h.cfg.Proc + "/" + entry.Name()
		var st unix.Stat_t
		if unix.Stat(dir, &st) != nil {
			continue // it has ended
		}
		out = append(out, extent{uint64(st.Uid), uint64(st.Uid) + 1}, extent{uint64(st.Gid), uint64(st.Gid) + 1})
		ns, err := os.Readlink(dir + "/ns/user")
		if err == nil && seen[ns] {
			continue
		}
		seen[ns] = err == nil
		for _, name := range [2]string{"/uid_map", "/gid_map"} {
			text, _ := os.ReadFile(dir + name) // it may have ended
			out = append(out, mapped(string(text))...)
		}
	}
	return union(out), nil
}

// mapped returns the host ids in the text of a uid_map. What is mapped to
// itself claims nothing: that is how services and sandboxes confine themselves
// without other ids (systemd's PrivateUsers=full maps all ids so).
func mapped(text string) []extent {
	var out []extent
	for line := range strings.Lines(text) {
		var in, host, n uint64
		if _, err := fmt.Sscan(line, &in, &host, &n); err != nil || in == host || host >= allIDs {
			continue
		}
		out = append(out, extent{host, min(host+min(n, allIDs), allIDs)})
	}
	return out
}
