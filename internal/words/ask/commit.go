package ask

// Commit is a request to make an image of what a container has written.
type Commit struct {
	Container string
	Name      string // repository[:tag]; empty: untagged
	Author    string // "Name <mail>"; empty: none
	Message   string // history comment
	Changes   []string
	NoPause   bool // its processes go on while it is read

	// Config is what a Docker client says about the new image besides: what is
	// set in it goes before what the container has.
	Config CommitConfig
}

// CommitConfig is the part of an image's config that a commit can be given.
type CommitConfig struct {
	User         string
	Env          []string // "NAME=value"
	Entrypoint   []string
	Cmd          []string
	WorkDir      string
	Labels       map[string]string
	StopSignal   string
	Volumes      []string
	ExposedPorts []string // "80/tcp"
	Shell        []string
}
