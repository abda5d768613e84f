// Package ask holds what a user requested, parsed once at a door: closed sets
// of structs with every default filled, so that nothing behind the door
// parses, guesses or defaults again.
package ask

import (
	"strings"
	"time"

	"fief/internal/words/record"
)

// Container is a complete request for a container. Doors fill it from a
// command line or a request body; zero values mean what the comments say.
type Container struct {
	Name     string // empty: the engine makes one up
	Image    string // as typed: name, name:tag, name@digest, id or id prefix
	Platform string // "os/arch[/variant]"; empty: the host's
	Pull     Pull   // when to fetch the image

	Entrypoint      []string // used when ReplaceEntry is set
	ReplaceEntry    bool     // Entrypoint, even empty, replaces the image's; the image's Cmd is then not used
	Cmd             []string // nil: the image's
	Env             []string // "NAME=value"; added to and overriding the image's
	WorkDir         string   // empty: the image's, or /
	User            string   // "user[:group]", names or ids; empty: the image's
	Groups          []string // additional groups, names or ids
	Hostname        string   // empty: the first twelve digits of the id
	Domainname      string
	Labels          map[string]string
	Annotations     map[string]string
	StopSignal      string    // empty: the image's, or SIGTERM
	StopTimeout     *int      // seconds; nil: 10; negative: wait for ever
	TTY             bool      // a terminal from the container's own devpts
	OpenStdin       bool      // stdin is a pipe, else /dev/null
	StdinOnce       bool      // the first attached stdin that ends closes the container's
	AttachStdin     bool      // what the creating client means to attach;
	AttachStdout    bool      // kept for inspect,
	AttachStderr    bool      // without further effect
	ConsoleSize     [2]uint16 // rows, columns; zeroes: unknown
	Mounts          []Mount   // in the order given
	VolumesFrom     []VolumesFrom
	VolumeDriver    string   // of volumes that -v and the image ask for; empty: local
	ReadOnly        bool     // rootfs read-only; volumes and tmpfs stay writable
	ShmSize         int64    // bytes; 0: 64 MiB
	CapAdd, CapDrop []string // as typed, "ALL" allowed
	Seccomp         Seccomp  // which system call filter
	NoNewPrivs      bool     // set no_new_privs
	Ulimits         []Ulimit // resource limits
	Sysctls         map[string]string
	Resources       record.Resources // what it may use, and the host's devices
	Userns          Userns           // never nil behind a door
	Network         Network          // none, host, container:NAME or a network
	Net             record.Net       // the networks, and what is to be published and known there
	PID             Space            // which pid namespace
	IPC             Space            // which ipc namespace
	UTS             Space            // which uts namespace
	Cgroupns        Space            // which cgroup namespace
	Privileged      bool             // every capability, the host's devices, no filter and no masks; needs UsernsHost
	Caller          *Caller          // who asks, where the door knows; for keep-id
	NetworkDefault  bool             // the client named no network; Network holds the engine's choice
	Init            bool             // run a tiny init as process 1 that reaps and forwards signals
	AutoRemove      bool             // remove when it has ended
	Log             Log              // where output goes
	Runtime         string           // empty: the daemon's default runtime
	Shift           string           // force one way of shifting ("idmapped", "copy" …); empty: the best
	Health          *Health          // nil: the image's
	Restart         RestartPolicy    // what to do when it ends
}

// Pull says when a run or create fetches its image.
type Pull string

// The pull policies of docker-run(1).
const (
	PullMissing Pull = "missing"
	PullAlways  Pull = "always"
	PullNever   Pull = "never"
	PullNewer   Pull = "newer" // podman-run(1): always, but what is stored will do when that fails
)

// SeccompMode is the closed set of ways to filter system calls.
type SeccompMode uint8

// The modes; the zero value is the built-in profile.
const (
	SeccompDefault SeccompMode = iota
	SeccompUnconfined
	SeccompProfile
)

// Seccomp is the system call filter asked for; Profile is the JSON of a Docker
// or OCI profile, read by the client, when Mode is SeccompProfile.
type Seccomp struct {
	Mode    SeccompMode
	Profile []byte
}

// Ulimit is one --ulimit; Name is lower case without RLIMIT_ ("nofile"). -1
// means unlimited.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Network is where the container's network comes from.
type Network string

// The networks that are none of fief's. "container:NAME" is another container's.
const (
	NetNone Network = "none"
	NetHost Network = "host"
)

// Container returns the name or id of the container whose network is asked for.
func (n Network) Container() (name string, ok bool) {
	return strings.CutPrefix(string(n), "container:")
}

// Caller is who asks: the user at the other end of a door's socket, or for
// root the user who became root with sudo(8), in ids of the host.
type Caller struct{ UID, GID uint32 }

// Exec is a complete request for another process in a running container.
type Exec struct {
	Cmd         []string
	Env         []string // added to the container's
	WorkDir     string   // empty: the container's
	User        string   // empty: the container's
	TTY         bool
	Privileged  bool
	OpenStdin   bool
	AttachOut   bool
	AttachErr   bool
	DetachKeys  []byte
	ConsoleSize [2]uint16
}

// PullImage is a request to fetch an image.
type PullImage struct {
	Name     string // as typed
	Platform string
	All      bool // every tag of the repository
	Auth     RegistryAuth
	PlainTLS bool // allow http: the registry was named insecure by the client
}

// PushImage is a request to store an image, or with All every tag of a
// repository, in the registry that its name names.
type PushImage struct {
	Name     string // as typed
	Platform string // "os/arch[/variant]" that every image must be of; empty: any
	All      bool
	Auth     RegistryAuth
}

// RegistryAuth is what a client sends in X-Registry-Auth; never stored.
type RegistryAuth struct {
	Username, Password, ServerAddress, IdentityToken, RegistryToken string
}

// ImportImage is a request to make a one-layer image of a root filesystem tar.
type ImportImage struct {
	Name     string   // repository[:tag]; empty: untagged
	Source   string   // URL of http or https to fetch it from; empty: what comes along
	Message  string   // history comment; empty: where it is from
	Changes  []string // Dockerfile instructions: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL
	Platform string
}

// Stop is how to stop a container. Signal empty: the container's. Timeout in
// seconds; nil: the container's; negative: wait for ever.
type Stop struct {
	Signal  string
	Timeout *int
}

// Logs selects log lines. Zero times mean no bound; Tail -1 means all.
type Logs struct {
	Stdout, Stderr bool
	Follow         bool
	Since, Until   time.Time
	Tail           int
}
