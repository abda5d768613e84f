package cmdline

import (
	"strconv"

	"fief/internal/words/ask"
	"fief/internal/words/idmap"
)

// identity chooses the user namespace, and tells who asks where the container
// may get the ids of whoever that is.
func (o *RunOptions) identity(r *Run, c Client) (err error) {
	words := ask.UsernsWords{Mode: o.userns, UIDMaps: o.uidMaps, GIDMaps: o.gidMaps, SubUID: o.subUID, SubGID: o.subGID}
	if r.Ask.Userns, err = words.Parse(); err != nil {
		return err
	}
	switch r.Ask.Userns.(type) {
	case ask.UsernsKeepID, ask.UsernsNomap:
		r.Ask.Caller = c.behind()
	}
	return nil
}

// behind is the user who became root with sudo(8). It is only a claim: the
// daemon believes it of root alone. What is no id is ignored.
func (c Client) behind() *ask.Caller {
	uid, okUID := c.id("SUDO_UID")
	gid, okGID := c.id("SUDO_GID")
	if !okUID || !okGID || uid == 0 {
		return nil
	}
	return &ask.Caller{UID: uid, GID: gid}
}

// id reads an id of the host from the client's environment.
func (c Client) id(name string) (uint32, bool) {
	value, ok := c.lookup(name)
	n, err := strconv.ParseUint(value, 10, 32)
	return uint32(n), ok && err == nil && n <= idmap.Max
}

// spaces chooses the other namespaces. Whether the daemon's default of user
// namespaces allows the host's is for the daemon to say.
func (o *RunOptions) spaces(r *Run, _ Client) error {
	r.Ask.Privileged = o.privileged
	for _, s := range []struct {
		kind, value string
		space       *ask.Space
	}{{"pid", o.pid, &r.Ask.PID}, {"ipc", o.ipc, &r.Ask.IPC}, {"uts", o.uts, &r.Ask.UTS}, {"cgroupns", o.cgroupns, &r.Ask.Cgroupns}} {
		space, err := ask.ParseSpace(s.kind, s.value)
		if err != nil {
			return err
		}
		*s.space = space
	}
	return r.Ask.CheckConflicts()
}
