package engine

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"fief/internal/launch"
	"fief/internal/spec"
	"fief/internal/words/ask"
	"fief/internal/words/errand"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// ownRuntime is the name of fief's own launch path. Other runtimes get the same
// configuration as a bundle, by an errand.
const ownRuntime = "fief"

// Runtime is another OCI runtime, as it was registered.
type Runtime struct {
	Path  string
	Args  []string      // before those of every call
	Limit time.Duration // of a call; zero: a minute
}

// Traits are what is known of a runtime's binary.
type Traits struct {
	Kind     record.RuntimeKind
	Features *features.Features // nil: it does not say
}

// runtimes are the binaries of other OCI runtimes.
type runtimes interface {
	// Know finds out about a binary; it asks each once.
	Know(path string) (Traits, error)
	// Call makes a call that needs no descriptors.
	Call(*errand.Errand) error
}

// isOwn reports whether a container is started by fief itself.
func isOwn(rec record.Container) bool { return rec.Runtime == "" || rec.Runtime == ownRuntime }

// checkRuntime refuses a name that no runtime has, in Docker's words.
func (e *Engine) checkRuntime(name string) error {
	if name != ownRuntime && !slices.Contains(e.cfg.Runtimes, name) {
		return fault.Say(fault.Invalid, "unknown or invalid runtime name: "+name)
	}
	return nil
}

// Names in a container's run directory.
const (
	errandDir = "oci"   // files of a runtime's calls
	stateDir  = "state" // in it: the runtime's own state
)

// engage makes the errand of a container's start. What it needs again, for a
// session or the end, is on record before anything is started: the daemon may be
// told of another runtime by then, or be another daemon.
func (e *Engine) engage(c *container, b *bundle, config *specs.Spec, extra []string, groups int) error {
	rec := c.record()
	if err := e.checkRuntime(rec.Runtime); err != nil {
		return err
	}
	rt := e.cfg.Others[rec.Runtime]
	traits, err := e.rooms.Runtimes.Know(rt.Path)
	if err != nil {
		return err
	}
	if err := checkFeatures(rec, config, traits.Features); err != nil {
		return err
	}
	if err := checkNodes(rec, traits.Kind, config); err != nil {
		return err
	}
	rec = c.change(func(r *record.Container) {
		r.External = &record.External{Path: rt.Path, Args: rt.Args, Limit: rt.Limit, Kind: traits.Kind}
	})
	if err := e.writeRun(rec); err != nil {
		return err
	}
	m, err := e.errand(rec, errand.Create, b)
	if err != nil {
		return err
	}
	m.TTY = rec.TTY
	m.enterGroups(rec, groups)
	m.mount("rootfs", errand.RootDir)
	for _, target := range extra {
		m.mount("extra:"+target, errand.RootDir+"/"+strings.TrimPrefix(target, "/"))
	}
	m.adapt(rec, config)
	return m.finish(config)
}

// engageExec makes the errand of another process in a running container.
func (e *Engine) engageExec(b *bundle, rec record.Container, process *specs.Process, groups int) error {
	m, err := e.errand(rec, errand.Exec, b)
	if err != nil {
		return err
	}
	m.TTY, b.command = process.Terminal, process.Args[0]
	m.enterGroups(rec, groups)
	return m.finish(process)
}

// errands is an errand in the making.
type errands struct {
	*errand.Errand
	b *bundle
}

func (e *Engine) errand(rec record.Container, verb errand.Verb, b *bundle) (*errands, error) {
	x := rec.External
	if x == nil {
		return nil, fault.New(fault.Internal, "reach runtime of container", rec.Name, "it is not on record", "")
	}
	dir := filepath.Join(e.runDir(rec.ID), errandDir)
	if err := os.MkdirAll(filepath.Join(dir, stateDir), 0o700); err != nil {
		return nil, fault.Wrap(classOf(err), "create", dir, err, "")
	}
	place, err := e.coverFor(x)
	if err != nil {
		return nil, err
	}
	path, view := e.rooms.Cgroups.Show(groupOf(rec))
	args := x.Args
	if path != "" { // the group is made, limited and removed by fief
		args = append(slices.Clone(args), x.Kind.NoCgroups()...)
	}
	b.errand = &errand.Errand{Verb: verb, Runtime: x.Path, Args: args, ID: rec.ID, Root: filepath.Join(dir, stateDir), Dir: dir,
		Place: place, View: view, Stdio: [3]int32{-1, -1, -1}, Limit: x.Limit}
	b.command = rec.Path
	return &errands{b.errand, b}, nil
}

// slot gives a descriptor of the bundle's, or one that the monitor makes, its
// number.
func (m *errands) slot(name string) int32 {
	m.b.plan.Files = append(m.b.plan.Files, name)
	return int32(len(m.b.plan.Files) - 1)
}

func (m *errands) mount(name, path string) {
	m.Mounts = append(m.Mounts, errand.Mount{Slot: m.slot(name), Path: path})
}

// enterGroups has the runtime started inside the container's groups: those of
// v1, which it is not shown, and that of v2 when it leaves cgroups alone.
func (m *errands) enterGroups(rec record.Container, older int) {
	for i := range older {
		m.Groups = append(m.Groups, m.slot(launch.GroupName(i)))
	}
	if m.b.files["cgroup"] != nil && rec.External.Kind.NoCgroups() != nil {
		m.Groups = append(m.Groups, m.slot("cgroup"))
	}
}

// finish adds streams and the text that the runtime reads.
func (m *errands) finish(v any) (err error) {
	if !m.TTY {
		for i, name := range []string{"stdin", "stdout", "stderr"} {
			m.Stdio[i] = m.slot(name)
		}
	}
	m.JSON, err = json.Marshal(v)
	return fault.Wrap(fault.Internal, "encode", "configuration", err, "")
}

// oldest is the version of the specification whose words are enough for what is
// asked of other runtimes: crun takes no 1.1 before its 1.9.
const oldest = "1.0.2"

// adapt makes fief's configuration one for a bundle in which every mount that
// was prepared is found at a path.
func (m *errands) adapt(rec record.Container, config *specs.Spec) {
	config.Version = oldest
	config.Root.Path = filepath.Join(m.Place, errand.RootDir)
	for i := range config.Mounts {
		name := "mount:" + strconv.Itoa(i)
		if m.b.files[name] == nil {
			continue
		}
		path := errand.MountDir + "/" + strconv.Itoa(i)
		m.mount(name, path)
		config.Mounts[i] = specs.Mount{Destination: config.Mounts[i].Destination, Type: "bind", Source: filepath.Join(m.Place, path),
			Options: bindOptions(config.Mounts[i].Options)}
	}
	for i, n := range config.Linux.Namespaces {
		if m.b.files["ns:"+string(n.Type)] == nil {
			continue
		}
		path := errand.SpaceDir + "/" + string(n.Type)
		m.mount("ns:"+string(n.Type), path)
		config.Linux.Namespaces[i].Path = filepath.Join(m.Place, path)
	}
	m.limits(rec, config)
}

// limits leaves the limits to the group, which has them. A runtime that enters
// it itself adds device rules of its own to those there: where there are none it
// shall allow everything, as fief does.
func (m *errands) limits(rec record.Container, config *specs.Spec) {
	rules := []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	if r := config.Linux.Resources; r != nil && len(r.Devices) > 0 {
		rules = r.Devices
	}
	config.Linux.Resources = &specs.LinuxResources{Devices: rules}
	if rec.External.Kind.NoCgroups() != nil {
		config.Linux.Resources = nil
	}
}

// bindOptions are the options of a mount that is prepared: what is below it is
// bound as well and, where asked, read-only already.
func bindOptions(options []string) []string {
	out := []string{"rbind"}
	for _, o := range options {
		switch o {
		case "ro", "nosuid", "nodev", "noexec", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable":
			out = append(out, o)
		}
	}
	return out
}

// covers are directories that every machine has some of, that every user can
// reach, and that no runtime needs.
func covers() []string {
	return []string{"/mnt", "/media", "/srv", "/var/empty", "/opt", "/home", "/tmp"}
}

// coverFor chooses the directory to cover for a runtime: one that hides neither it
// nor what it works with. Mounts come by descriptor: what is below it they show
// all the same.
func (e *Engine) coverFor(x *record.External) (string, error) {
	needed := append([]string{x.Path, e.cfg.ExecRoot, e.cfg.InitBinary}, x.Args...)
	for _, p := range slices.Clone(needed) {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			needed = append(needed, real)
		}
	}
	for _, dir := range covers() {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() {
			continue
		}
		if !slices.ContainsFunc(needed, func(p string) bool { return p == dir || strings.Contains(p, dir+"/") }) {
			return dir, nil
		}
	}
	return "", fault.New(fault.Unsupported, "prepare a bundle for", x.Path, "there is no directory that every user can reach and nothing is needed of",
		"make an empty directory /mnt")
}

// describe shows what another runtime would be told.
func (b *bundle) describe() string {
	var text bytes.Buffer
	if json.Indent(&text, b.errand.JSON, "", "  ") != nil {
		return ""
	}
	return strings.Join(append([]string{b.errand.Runtime}, b.errand.Args...), " ") + " --root " + b.errand.Root + " " +
		b.errand.Verb.String() + " --bundle " + b.errand.Place + " " + b.errand.ID + ", with this " + errand.Config + ":\n" + text.String() + "\n"
}

// blame gives a runtime's failure the exit code that Docker gives it: 127 for a
// command that is not there, 126 for one that cannot be executed. A file that is
// missing is the command when it is named.
func blame(err error, command string) error {
	if !fault.Is(err, fault.Invalid) {
		return err
	}
	text := strings.ToLower(err.Error())
	has := func(s string) bool { return strings.Contains(text, s) }
	f := fault.Say(fault.Invalid, err.Error())
	switch {
	case has("executable file") && has("not found"), has("no such file or directory") && has(strings.ToLower(command)):
		f = fault.Say(fault.Invalid, inDockersWords(err.Error(), "executable file not found", "no such file or directory"))
		f.ExitCode = 127
	case has("permission denied"), has("is a directory"), has("exec format error"):
		f = fault.Say(fault.Invalid, inDockersWords(err.Error(), "permission denied", "is a directory", "exec format error"))
		f.ExitCode = 126
	default:
		f.Class = fault.Internal
	}
	return f
}

// inDockersWords adds the first of some words to a text that has none of them,
// spelled so: the docker client takes exit codes from the text (docker/cli,
// toStatusError), and crun spells them otherwise.
func inDockersWords(text string, words ...string) string {
	if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) }) {
		return text
	}
	return text + ": " + words[0]
}

// disengage has a runtime forget a container that has ended or was not started,
// and ends what is left of it. It does nothing when the runtime knows none.
func (e *Engine) disengage(rec record.Container) {
	if rec.External == nil {
		return
	}
	dir := filepath.Join(e.runDir(rec.ID), errandDir)
	known, err := os.ReadDir(filepath.Join(dir, stateDir))
	if err != nil {
		return // no call was made, or all is over
	}
	if len(known) > 0 {
		m, err := e.errand(rec, errand.Delete, e.newBundle())
		if err == nil {
			err = e.rooms.Runtimes.Call(m.Errand)
		}
		if err != nil {
			slog.Warn("a runtime cannot delete what it has of a container", "container", rec.ID, "runtime", rec.External.Path, "error", err)
		}
	}
	if err := e.rooms.Cgroups.Kill(groupOf(rec)); err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Unsupported) {
		slog.Warn("cannot end what a runtime has left of a container", "container", rec.ID, "error", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		slog.Warn("cannot remove what a runtime has left", "container", rec.ID, "error", err)
	}
}

// refuseSandboxed turns down what needs to see the container's own processes or
// files where a runtime keeps both to itself.
func refuseSandboxed(rec record.Container, what string) error {
	if rec.External == nil || !rec.External.Kind.Sandboxed() {
		return nil
	}
	return fault.New(fault.Unsupported, what, rec.Name, "its runtime "+rec.Runtime+" keeps the container's processes and files to itself",
		"stop the container first, or use another runtime")
}

// execUser finds who a session runs as.
func (e *Engine) execUser(rec record.Container, a ask.Exec, u *spec.User) error {
	who, groups := a.User, []string(nil)
	if who == "" {
		who, groups = rec.User, rec.Groups
	}
	root, err := e.rooms.Processes.Root(rec.State.PID, rec.State.StartedAt)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := refuseSandboxed(rec, "look up a name in the running container"); err != nil && hasNames(who, groups) {
		return err
	}
	u.UID, u.GID, u.Groups, u.Home, err = spec.LookupUser(root, who, groups)
	return err
}

// hasNames reports whether a user or one of the groups is no number.
func hasNames(who string, groups []string) bool {
	user, group, _ := strings.Cut(who, ":")
	for _, s := range append([]string{user, group}, groups...) {
		if _, err := strconv.ParseUint(s, 10, 32); s != "" && err != nil {
			return true
		}
	}
	return false
}
