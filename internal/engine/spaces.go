package engine

import (
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/launch"
	"fief/internal/network"
	"fief/internal/spec"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

const containerMode = "container:"

// donorOf returns the id of the container that a mode names.
func donorOf(mode string) (id string, ok bool) { return strings.CutPrefix(mode, containerMode) }

// space is a namespace that a container may share, in the words of the OCI
// spec, of /proc/PID/ns and of users.
type space struct {
	kind specs.LinuxNamespaceType
	file string
	word string
	mode func(*record.Container) *string
}

// shared lists them in the order in which conflicts are told.
var shared = [...]space{
	{specs.NetworkNamespace, "net", "network", func(r *record.Container) *string { return &r.Network }},
	{specs.IPCNamespace, "ipc", "IPC", func(r *record.Container) *string { return &r.IPCMode }},
	{specs.PIDNamespace, "pid", "PID namespace", func(r *record.Container) *string { return &r.PIDMode }},
	{specs.UTSNamespace, "uts", "UTS namespace", func(r *record.Container) *string { return &r.UTSMode }},
	{specs.CgroupNamespace, "cgroup", "cgroup namespace", func(r *record.Container) *string { return &r.CgroupnsMode }},
}

// share notes which namespaces a container shares, and returns the containers
// it shares them with, each once. Those must exist, and need not run yet.
func (e *Engine) share(rec *record.Container, a ask.Container) ([]record.Container, error) {
	rec.PIDMode, rec.IPCMode, rec.UTSMode, rec.CgroupnsMode = string(a.PID.Mode), string(a.IPC.Mode), string(a.UTS.Mode), string(a.Cgroupns.Mode)
	net, ok := a.Network.Container()
	if !ok {
		net = ""
	}
	asked := [len(shared)]string{net, a.IPC.Container, a.PID.Container, a.UTS.Container, a.Cgroupns.Container}
	var donors []record.Container
	for i, s := range shared {
		if asked[i] == "" {
			continue
		}
		donor, err := e.donor(asked[i])
		if err != nil {
			return nil, err
		}
		if err := mayShare(s, donor); err != nil {
			return nil, err
		}
		*s.mode(rec) = containerMode + donor.ID
		donors = append(donors, donor)
	}
	if rec.UTSMode == string(ask.SpaceHost) {
		rec.Hostname = e.cfg.Host.Name
	}
	for _, d := range donors { // a network brings the name that is in its /etc/hosts
		if rec.Network == containerMode+d.ID || rec.UTSMode == containerMode+d.ID {
			rec.Hostname, rec.Domainname = d.Hostname, d.Domainname
		}
	}
	return donors, e.oneUserns(donors, a.Userns)
}

// donor finds a container that another one names. One that is not there is no
// NotFound: docker clients take that of a create for a missing image, and pull.
func (e *Engine) donor(name string) (record.Container, error) {
	c, err := e.table.find(name)
	if err != nil {
		return record.Container{}, fault.Say(fault.Invalid, err.Error())
	}
	return c.record(), nil
}

// mayShare refuses an ipc namespace that its owner has asked to be private, in
// Docker's words.
func mayShare(s space, donor record.Container) error {
	if s.kind != specs.IPCNamespace || donor.IPCMode != string(ask.SpacePrivate) && donor.IPCMode != string(ask.SpaceNone) {
		return nil
	}
	return fault.Say(fault.Invalid, "can't join IPC of container "+donor.ID+": container "+donor.ID+
		": non-shareable IPC (hint: use IpcMode:shareable for the donor container)")
}

// oneUserns refuses to choose between the user namespaces of several
// containers. Docker takes the last one silently (moby#46210).
func (e *Engine) oneUserns(donors []record.Container, asked ask.Userns) error {
	if _, open := asked.(ask.UsernsDefault); !open {
		return nil
	}
	first := ""
	for _, d := range donors {
		if d.Identity.Mode == modeHost {
			continue
		}
		root := e.usernsOf(d)
		if first != "" && root != first {
			return fault.New(fault.Invalid, "share the namespaces of containers", "",
				"they are in different user namespaces, and the container can be in one only",
				"say which with --userns=container:NAME, or give it one of its own with --userns=auto")
		}
		first = root
	}
	return nil
}

// usernsOf names the user namespace of a container by the container it was
// made for.
func (e *Engine) usernsOf(rec record.Container) string {
	for range maxDonors {
		if rec.Identity.Mode != modeContainer {
			break
		}
		c, err := e.table.find(rec.Identity.Joined)
		if err != nil {
			return rec.Identity.Joined
		}
		rec = c.record()
	}
	if rec.Identity.Mode == modePath {
		return rec.Identity.Joined
	}
	return rec.ID
}

// maxDonors bounds chains of containers that share namespaces.
const maxDonors = 64

// root follows containers that share a namespace to the one that does not get
// it from a container.
func (e *Engine) root(rec record.Container, s space) record.Container {
	for range maxDonors {
		id, ok := donorOf(*s.mode(&rec))
		if !ok {
			break
		}
		c, err := e.table.find(id)
		if err != nil {
			break
		}
		rec = c.record()
	}
	return rec
}

func (e *Engine) rootMode(rec record.Container, s space) string {
	rec = e.root(rec, s)
	return *s.mode(&rec)
}

// checkShared refuses, in Docker's words, what a user namespace makes
// meaningless: the host's network and processes seen from inside one, and
// privileges that are none.
func (e *Engine) checkShared(rec record.Container) error {
	mapped := rec.Identity.Mode != modeHost
	if mapped && rec.Privileged {
		return refused("privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
			"add --userns=host")
	}
	if root := e.rootMode(rec, shared[0]); root == string(ask.NetHost) || !strings.HasPrefix(rec.Network, containerMode) {
		if err := network.Check(root, mapped); err != nil {
			return err
		}
	}
	if mapped && e.rootMode(rec, shared[2]) == string(ask.SpaceHost) {
		return refused("cannot share the host PID namespace when user namespaces are enabled", "add --userns=host to run as the host's root")
	}
	return nil
}

func refused(words, hint string) error {
	f := fault.Say(fault.Invalid, words)
	f.Hint = hint
	return f
}

// join opens the namespaces that a container shares, and says what the spec
// needs to know of them. What it opens is the bundle's.
func (e *Engine) join(rec record.Container, pair idmap.Pair, b *bundle) (spec.Shared, error) {
	out := spec.Shared{Paths: map[specs.LinuxNamespaceType]string{}}
	for _, s := range shared {
		id, ok := donorOf(*s.mode(&rec))
		if !ok {
			continue
		}
		donor, err := e.runningDonor(id, s.word)
		if err != nil {
			return out, err
		}
		if err := mayShare(s, donor); err != nil {
			return out, err
		}
		if err := e.joinOne(donor, s.kind, s.file, b, &out); err != nil {
			return out, err
		}
		if err := e.joinFiles(donor, s.kind, b, &out); err != nil {
			return out, err
		}
	}
	switch rec.Identity.Mode {
	case modeContainer:
		donor, err := e.runningDonor(rec.Identity.Joined, "user namespace")
		if err != nil {
			return out, err
		}
		return out, e.joinOne(donor, specs.UserNamespace, "user", b, &out)
	case modePath:
		ns, now, err := e.rooms.Spaces.UserAt(rec.Identity.Joined)
		if err != nil {
			return out, err
		}
		b.files["ns:"+string(specs.UserNamespace)] = ns
		out.Paths[specs.UserNamespace] = rec.Identity.Joined
		if !now.Equal(pair) {
			return out, fault.New(fault.Conflict, "join user namespace", rec.Identity.Joined, "its maps are not those it had when the container was created",
				"create the container again")
		}
	}
	return out, nil
}

func (e *Engine) joinOne(donor record.Container, kind specs.LinuxNamespaceType, file string, b *bundle, out *spec.Shared) error {
	f, err := e.rooms.Spaces.Of(donor.State.PID, donor.State.StartedAt, file)
	if err != nil {
		return err
	}
	b.files["ns:"+string(kind)] = f
	out.Paths[kind] = "/proc/" + strconv.Itoa(donor.State.PID) + "/ns/" + file
	return nil
}

// joinFiles shares what belongs to a namespace and is a file: the names of a
// network, the /dev/shm of an ipc namespace.
func (e *Engine) joinFiles(donor record.Container, kind specs.LinuxNamespaceType, b *bundle, out *spec.Shared) error {
	switch kind {
	case specs.NetworkNamespace:
		out.Files = e.runDir(e.root(donor, shared[0]).ID)
	case specs.IPCNamespace:
		if e.rootMode(donor, shared[1]) == string(ask.SpaceHost) {
			out.Shm = spec.HostShm
			return nil
		}
		f, err := e.rooms.Spaces.Of(donor.State.PID, donor.State.StartedAt, "mnt")
		if err != nil {
			return err
		}
		defer f.Close()
		shm, err := e.rooms.Spaces.Shm(f)
		if err != nil {
			return err
		}
		b.shm = shm
		out.Shm = "/proc/" + strconv.Itoa(donor.State.PID) + "/root/dev/shm"
	}
	return nil
}

// runningDonor finds a container whose namespace is to be joined, in Docker's
// words when it does not run.
func (e *Engine) runningDonor(id, word string) (record.Container, error) {
	c, err := e.table.find(id)
	if err != nil {
		return record.Container{}, err
	}
	donor := c.record()
	if donor.State.Status != record.Running {
		f := fault.Say(fault.Conflict, "cannot join "+word+" of a non running container: "+donor.ID)
		f.Hint = "start it first: fief start " + donor.Name
		return record.Container{}, f
	}
	return donor, refuseSandboxed(donor, "join a namespace of container")
}

// follow takes over the maps of the container whose user namespace is joined:
// it may have got others since. Files are stored with inside ids, so nothing
// else changes.
func (e *Engine) follow(c *container, rec record.Container) (record.Container, error) {
	if rec.Identity.Mode != modeContainer {
		return rec, nil
	}
	donor, err := e.runningDonor(rec.Identity.Joined, "user namespace")
	if err != nil {
		return rec, err
	}
	old, err := pairOf(rec.Identity)
	if err != nil {
		return rec, err
	}
	now, err := pairOf(donor.Identity)
	if err != nil || now.Equal(old) {
		return rec, err
	}
	if now.IsZero() {
		return rec, fault.New(fault.Conflict, "share the user namespace of container", donor.Name, "it has none any more",
			"give this container another one: fief update --userns=auto "+rec.Name)
	}
	if err := e.keepsMap(rec); err != nil {
		return rec, err
	}
	e.rooms.IDs.Release(rec.ID, leftovers(rec)...)
	if err := e.rooms.IDs.Share(rec.ID, now); err != nil {
		return rec, err
	}
	rec = c.change(func(r *record.Container) { r.Identity.UID, r.Identity.GID = donor.Identity.UID, donor.Identity.GID })
	e.saveSoon(rec)
	return rec, nil
}

// prepared makes a mount of a spec that the container cannot make itself: a
// file system that shows a namespace which is not its user namespace's. Nil for
// all others.
func (e *Engine) prepared(config *specs.Spec, i int, b *bundle) (*os.File, error) {
	kind, ok := launch.Prepared(config, i)
	if !ok {
		return nil, nil
	}
	return e.rooms.Spaces.Mount(kind, b.files["ns:"+string(kind.Namespace())], launch.ProcOptions(config.Mounts[i]))
}

// sharedOf says of a running container which namespaces it shares, as far as
// another process in it must know: the paths are not opened.
func sharedOf(rec record.Container) spec.Shared {
	out := spec.Shared{Paths: map[specs.LinuxNamespaceType]string{}}
	dir := "/proc/" + strconv.Itoa(rec.State.PID) + "/ns/"
	for _, s := range shared {
		if _, ok := donorOf(*s.mode(&rec)); ok {
			out.Paths[s.kind] = dir + s.file
		}
	}
	if rec.Identity.Joined != "" {
		out.Paths[specs.UserNamespace] = dir + "user"
	}
	return out
}
