package main

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// maxConfig bounds a config.json, and maxList each of its lists that becomes
// steps of a plan, before anything is opened for them.
const (
	maxConfig = 16 << 20
	maxList   = 8192
)

// container is what is stored about a container in <root>/<id>/state.json,
// beside config.json as it was at create and the gate, a FIFO.
type container struct {
	ID          string
	Bundle      string
	Rootfs      string
	PID         int
	StartTime   uint64 // of the process, in clock ticks since boot: tells it from a later one with its pid
	Created     time.Time
	Started     bool
	Cgroup      string // its path from the roots of the hierarchies, empty without one
	Unit        string // of systemd that has the cgroup, empty when nobody was asked
	Annotations map[string]string

	dir     string
	config  *specs.Spec // of one that this process has made
	hooked  bool        // hooks may have run
	systemd bool        // is asked for the cgroup
}

// validID: what runc and crun accept, without anything a path could be made of.
func validID(id string) error {
	ok := id != "" && len(id) <= 1024 && id != "." && id != ".."
	for i, c := range id {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (letter || strings.ContainsRune("_+-", c) || i > 0 && c == '.')
	}
	if !ok {
		return fault.New(fault.Invalid, "use container id", strconv.Quote(id), "not valid", "use letters, digits and _ + - .")
	}
	return nil
}

func (a *app) open(id string) (*container, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	dir := filepath.Join(a.root, id)
	b, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "find container", id, "container does not exist", "")
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "read state of", id, err, "")
	}
	c := &container{dir: dir}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fault.Wrap(fault.Corrupt, "read state of", id, err, "delete it with --force")
	}
	return c, nil
}

// save writes state.json; a reader sees the old one or the new one.
func (c *container) save() error {
	if err := c.write(); err != nil {
		return err
	}
	return c.commit()
}

// write is the part of save that nobody sees.
func (c *container) write() error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Internal, "save state of", c.ID, os.WriteFile(c.stateFile()+".new", b, 0o600), "")
}

// commit has readers see what was written.
func (c *container) commit() error {
	name := c.stateFile()
	return fault.Wrap(fault.Internal, "save state of", c.ID, os.Rename(name+".new", name), "")
}

func (c *container) stateFile() string { return filepath.Join(c.dir, "state.json") }

// status is the container's state in the OCI runtime spec's words.
func (c *container) status() specs.ContainerState {
	if c.PID == 0 {
		return specs.StateCreating
	}
	switch {
	case !c.alive():
		return specs.StateStopped
	case c.Started && c.paused():
		return paused
	case c.Started:
		return specs.StateRunning
	}
	return specs.StateCreated
}

// alive reports whether the container's process is there, and no later one with
// its number.
func (c *container) alive() bool {
	start, zombie, ok := processTime(c.PID)
	return ok && !zombie && start == c.StartTime
}

// processTime reads a process's start time and whether it is dead already.
func processTime(pid int) (start uint64, zombie, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false, false
	}
	// The second field is in parentheses and may hold anything (proc_pid_stat(5)).
	_, rest, found := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), ") ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return 0, false, false
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0] == "Z" || fields[0] == "X", err == nil
}

// pidfd opens the container's process, sure that it is this one.
func (c *container) pidfd() (int, error) {
	fd, err := unix.PidfdOpen(c.PID, 0)
	if err == nil && !c.alive() {
		unix.Close(fd)
		err = unix.ESRCH
	}
	if err != nil {
		return -1, fault.New(fault.Conflict, "reach container", c.ID, "container not running", "")
	}
	return fd, nil
}

func (c *container) oci() specs.State {
	s := specs.State{Version: specVersion, ID: c.ID, Status: c.status(), Bundle: c.Bundle, Annotations: c.Annotations}
	if s.Status != specs.StateStopped {
		s.Pid = c.PID
	}
	return s
}

func one(args []string) (string, error) {
	if len(args) != 1 {
		return "", fault.New(fault.Invalid, "run", "", "exactly one container id is needed", "")
	}
	return args[0], nil
}

func stateCommand(a *app, _ *flag.FlagSet) func([]string) error {
	return func(args []string) error {
		id, err := one(args)
		if err != nil {
			return err
		}
		c, err := a.open(id)
		if err != nil {
			return err
		}
		return printJSON(os.Stdout, c.report())
	}
}

// report is a container in runc's words: the state of the OCI runtime spec and a
// little more, which containerd (go-runc, type Container) and crictl read.
type report struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	PID         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

func (c *container) report() report {
	s := c.oci()
	return report{s.Version, s.ID, s.Pid, s.Status, s.Bundle, c.Rootfs, c.Created.UTC(), s.Annotations, c.owner()}
}

// owner is whose directory the state is in: a name, or "#" and a number.
func (c *container) owner() string {
	var st unix.Stat_t
	if unix.Stat(c.dir, &st) != nil {
		return ""
	}
	if st.Uid == 0 {
		return "root"
	}
	return "#" + strconv.Itoa(int(st.Uid))
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
