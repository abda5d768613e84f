package hostids

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// maxMap bounds what is read of a uid_map: 340 lines of 33 bytes fit.
const maxMap = 64 << 10

// Live returns the ids that processes use: the owners of processes, one claim
// for each id, and what the maps of their user namespaces hold, each namespace
// read once. A process that was started with other ids than it has by now, and
// then closed to others (prctl(2), PR_SET_DUMPABLE), is seen as root's. Class
// Unavailable when the processes cannot be listed.
func (f Files) Live() ([]Claim, error) {
	f = f.complete()
	entries, err := os.ReadDir(f.Proc)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "look for ids in use in", f.Proc, err, "")
	}
	s := survey{proc: f.Proc, namespaces: map[string]bool{}, uids: map[uint32]bool{}, gids: map[uint32]bool{}}
	if own, err := os.Readlink(f.Proc + "/self/ns/user"); err == nil {
		s.namespaces[own] = true
	}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err == nil {
			s.look(entry.Name())
		}
	}
	return s.claims, nil
}

// survey is what has been seen of the processes so far.
type survey struct {
	proc       string
	namespaces map[string]bool
	uids, gids map[uint32]bool
	claims     []Claim
}

// look adds what a process claims that none before it did. It may end meanwhile.
func (s *survey) look(pid string) {
	dir := s.proc + "/" + pid
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return
	}
	var fresh []Claim
	if !s.uids[st.Uid] {
		s.uids[st.Uid] = true
		fresh = append(fresh, Claim{From: uint64(st.Uid), To: uint64(st.Uid) + 1, UID: true})
	}
	if !s.gids[st.Gid] {
		s.gids[st.Gid] = true
		fresh = append(fresh, Claim{From: uint64(st.Gid), To: uint64(st.Gid) + 1, GID: true})
	}
	ns, err := os.Readlink(dir + "/ns/user")
	if err != nil || !s.namespaces[ns] {
		s.namespaces[ns] = err == nil
		for i, name := range [2]string{"/uid_map", "/gid_map"} {
			text, _ := readFile(dir+name, maxMap, 0)
			for _, c := range mapped(string(text)) {
				c.UID, c.GID = i == 0, i == 1
				fresh = append(fresh, c)
			}
		}
	}
	if len(fresh) == 0 {
		return
	}
	command, _ := readFile(dir+"/comm", maxMap, 0)
	for _, c := range fresh {
		c.Kind, c.Holder, c.Source = record.IDProcess, strings.TrimRight(string(command), "\n"), "pid "+pid
		s.claims = append(s.claims, c)
	}
}

// mapped returns the host ids in the text of a uid_map. What is mapped to
// itself claims nothing: that is how services and sandboxes confine themselves
// without other ids (systemd's PrivateUsers=full maps all ids so).
func mapped(text string) []Claim {
	var out []Claim
	for line := range strings.Lines(text) {
		var in, host, n uint64
		if _, err := fmt.Sscan(line, &in, &host, &n); err != nil {
			continue
		}
		if c, ok := mapping(in, host, n); ok {
			out = append(out, c)
		}
	}
	return out
}

// mapping is the claim of a line of a map; false when it claims nothing.
func mapping(in, host, n uint64) (Claim, bool) {
	if in == host || host >= allIDs || n == 0 {
		return Claim{}, false
	}
	return Claim{From: host, To: min(host+min(n, allIDs), allIDs)}, true
}
