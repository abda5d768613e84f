// Package record holds what fief knows about images, containers and itself, as
// plain values: what state.db and /run/fief store as JSON and what the native
// door sends. Fields are only ever added; a reader ignores what it does not
// know and a missing field is its zero value.
package record

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"fief/internal/words/idmap"
)

// Version is the version of every stored record of this build.
const Version = 1

// Status is the life stage of a container, in Docker's words.
type Status string

// The stages.
const (
	Created Status = "created"
	Running Status = "running"
	// Restarting: it has ended and waits to be started again.
	Restarting Status = "restarting"
	Exited     Status = "exited"
	Removing   Status = "removing"
	Dead       Status = "dead"
)

// Container is everything known about a container. Values in it are final:
// image defaults are merged in, names resolved, nothing refers to a client.
type Container struct {
	Version  int
	ID       string // 64 hex digits
	Name     string // without slash
	Created  time.Time
	Image    string // as the user named it
	ImageID  string // "sha256:…" of the image config; empty for the host image
	Manifest string // "sha256:…" of the manifest it was made from
	Platform string

	Path         string   // the executable after merging entrypoint and command
	Args         []string // its arguments
	Entrypoint   []string // merged
	Cmd          []string // merged
	Env          []string // merged
	WorkDir      string
	User         string
	Groups       []string
	Hostname     string
	Domainname   string
	Labels       map[string]string
	Annotations  map[string]string
	StopSignal   string
	StopTimeout  *int
	TTY          bool
	Console      [2]uint16 // rows and columns to begin with; zeroes: unknown
	OpenStdin    bool
	StdinOnce    bool
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	ReadOnly     bool
	ShmSize      int64
	CapAdd       []string
	CapDrop      []string
	Seccomp      string // "builtin", "unconfined" or "custom"
	Profile      []byte `json:",omitempty"` // the custom seccomp profile
	NoNewPrivs   bool
	SecurityOpt  []string // as a Docker client would have typed them
	Ulimits      []Ulimit
	Sysctls      map[string]string `json:",omitempty"`
	Resources    Resources
	Mounts       []Mount
	VolumesFrom  []string `json:",omitempty"` // whose mounts are among these, as NAME or NAME:ro
	Network      string   // "none", "host", "container:ID" or the name of a network
	Net          Net
	NetworkAsked string // what the client said: "", "default", "none", "host", "container:NAME"
	PIDMode      string // "" for one of its own, "host" or "container:ID"
	IPCMode      string // the same; "private" for one that cannot be joined, "none" for one without /dev/shm
	UTSMode      string // as PIDMode
	CgroupnsMode string // as PIDMode
	Privileged   bool
	Init         bool
	AutoRemove   bool
	Log          Log
	LogPath      string
	Runtime      string
	External     *External `json:",omitempty"` // nil: not started by another runtime
	Health       *Health   `json:",omitempty"` // nil: not checked
	Shell        []string  `json:",omitempty"` // of the image, for a check's command; nil: /bin/sh -c
	Restart      string
	RestartMax   int

	Identity Identity
	Rootfs   Rootfs
	State    State
	Execs    []string // ids of running exec sessions
}

// Identity says which host ids a container has and why.
type Identity struct {
	Mode   string       // "auto", "host", "map", "remap", "keep-id", "nomap", "container", "ns"
	UID    []idmap.Span // empty in mode host
	GID    []idmap.Span
	Lease  *Lease    // nil when the ids were not granted by the pool
	Asked  string    // what the user said, as --userns takes it; empty: nothing
	Joined string    // in mode container the id of the container, in mode ns the path, whose namespace is used
	Since  time.Time // when the container got these ids
}

// Lease is a recorded claim on host ids [Base, Base+Size), for uids and gids.
type Lease struct {
	Base idmap.Host
	Size uint32
}

// Rootfs says how the root filesystem is made.
type Rootfs struct {
	Layers   []string // ids of the layers, lowest first
	Host     bool     // the built-in host image
	Upper    string   // name of the writable layer below uppers/
	Way      string   // "idmapped", "plain", …: how stored files appear under the map
	Why      string   // why no better way was taken; empty for the best
	Asked    string   // the way --storage-opt shift asked for; empty: the best
	Volatile bool     // upper is not synced: it dies with the container
}

// State is the changing part of a container.
type State struct {
	Status     Status
	PID        int // host pid of process 1, 0 unless running
	ExitCode   int
	Error      string // why the last start failed
	Paused     bool   // its processes stand still; Status is Running
	OOMKilled  bool   // the kernel has killed a process of it for lack of memory
	StartedAt  time.Time
	FinishedAt time.Time
	Restarts   int          // by the policy, since a user started it
	Stopped    bool         // a user ended it
	Health     *HealthState `json:",omitempty"` // nil: not checked
}

// Word is the stage in Docker's words: one that stands still is "paused".
func (s State) Word() string {
	if s.Paused {
		return "paused"
	}
	return string(s.Status)
}

// Ulimit is a resource limit by its lower-case name; -1 is unlimited.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Log is where output goes.
type Log struct {
	Driver   string
	Options  map[string]string // as they were given, with the daemon's
	MaxSize  int64
	MaxFile  int
	Compress bool
	Buffer   int64 // of a log that is not waited for; 0: it is
}

// LoggedIn is a registry's answer to credentials that it takes. A token, where
// there is one, is to be kept instead of the password.
type LoggedIn struct {
	Status        string
	IdentityToken string
}

// Pushed is one manifest that a registry has stored under a tag.
type Pushed struct {
	Tag    string
	Digest string
	Size   int64 // of the manifest, in bytes
}

// Image is an image that is complete in the store.
type Image struct {
	Version  int
	ID       string   // "sha256:…" digest of the config
	Manifest string   // "sha256:…" digest of the manifest
	Names    []string // "docker.io/library/busybox:latest", canonical and tagged
	Digests  []string // "docker.io/library/busybox@sha256:…"
	Created  time.Time
	Pulled   time.Time
	Size     int64 // bytes on disk of the unpacked layers
	OS, Arch string
	Variant  string
	Author   string
	Comment  string
	Config   ImageConfig
	Layers   []Layer // lowest first
	History  []History
	Host     bool // the built-in host image: nothing is stored
	// Damage is what a look at the store found damaged of its layers and blobs
	// and nothing has mended since. It is not part of what is stored of an image.
	Damage []Problem `json:",omitempty"`
}

// ImageConfig is what an image says about the containers made of it.
type ImageConfig struct {
	User         string
	Env          []string
	Entrypoint   []string
	Cmd          []string
	WorkDir      string
	Labels       map[string]string
	StopSignal   string
	Volumes      []string
	ExposedPorts []string
	Shell        []string
	Health       *Health `json:",omitempty"`
}

// Layer is one unpacked layer and the facts noted while unpacking it.
type Layer struct {
	DiffID string       // "sha256:…" of the uncompressed tar
	Digest string       // "sha256:…" of the blob as stored
	Bytes  int64        // size of the blob
	Size   int64        // bytes of file content unpacked
	MaxUID idmap.Inside // of the owners of files
	MaxGID idmap.Inside
	// The highest ids that the layer's own /etc/passwd and /etc/group name, 65534
	// (nobody) left out; 0 when it has no such file.
	PasswdUID idmap.Inside
	PasswdGID idmap.Inside
	Files     int64
	Opaque    bool // hides every layer below it
}

// History is one line of `fief history`.
type History struct {
	Created    time.Time
	CreatedBy  string
	Author     string
	Comment    string
	EmptyLayer bool
}

// Exec is an exec session.
type Exec struct {
	ID         string
	Container  string
	Path       string
	Args       []string
	User       string
	TTY        bool
	OpenStdin  bool
	AttachOut  bool
	AttachErr  bool
	Privileged bool
	Running    bool
	Started    bool
	ExitCode   int
	PID        int
}

// Up reports whether a container runs or is about to again.
func (s State) Up() bool { return s.Status == Running || s.Status == Restarting }

// Exit is the end of a process.
type Exit struct {
	Code  int // 128+n after signal n
	Error string
	At    time.Time
}

// Info is what `fief info` shows.
type Info struct {
	ID                 string // of the data root, made once
	Name               string // host name
	Version            string
	Kernel, OS, OSType string
	Arch               string
	NCPU               int
	MemTotal           int64
	Containers         int
	Running, Stopped   int
	Images             int
	DataRoot, ExecRoot string
	StorageFS          string // file system type below the data root
	Shift              string // the way of shifting chosen for it
	ShiftWhy           string
	CgroupVersion      string
	CgroupDriver       string
	Userns             bool   // containers get a user namespace by default
	RemapUser          string // userns-remap, empty when each has its own range
	Runtimes           []string
	DefaultRuntime     string
	LogDriver          string // of containers that name none
	InsecureRegistries []string
	Debug              bool
	Goroutines, FDs    int
	Labels             []string
	Pool               PoolInfo
	Warnings           []string
	Can                Abilities // which limits there are controllers for
	Paused             int       // not of Running
}

// PoolInfo says how many 65536-id ranges the daemon has.
type PoolInfo struct {
	First, Last idmap.Host
	Granted     int
	Free        int
	Quarantined int // not leased and not to be leased yet
}

// Event is something that happened to an object.
type Event struct {
	Type   string // "container", "image", "daemon"
	Action string // "create", "start", "die" …: Docker's words
	ID     string
	Attrs  map[string]string
	At     time.Time
}

// Progress is one step of long work, in the shape docker clients draw: ID names
// the bar, Status is the sentence, Current of Total is in bytes (Total 0:
// unknown).
type Progress struct {
	ID      string
	Status  string
	Current int64
	Total   int64
}

// Removed says what removing an image did: one of the two is set.
type Removed struct {
	Untagged string
	Deleted  string
}

// LogLine is one piece of output. Text keeps its newline when it had one.
type LogLine struct {
	At     time.Time
	Stream string // "stdout" or "stderr"
	Text   []byte
	Attrs  map[string]string // labels, variables and tag that the log was told to note
}

// Details are a line's attributes as docker logs --details prints them: sorted,
// in the escaping of a URL's query.
func (l LogLine) Details() string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(l.Attrs)) {
		out = append(out, url.QueryEscape(k)+"="+url.QueryEscape(l.Attrs[k]))
	}
	return strings.Join(out, ",")
}

// Top is a process table.
type Top struct {
	Titles    []string
	Processes [][]string
}
