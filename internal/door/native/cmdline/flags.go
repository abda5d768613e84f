package cmdline

import (
	"time"

	"github.com/spf13/pflag"
)

// RunOptions holds the flags of run and create as typed.
type RunOptions struct {
	attach, env, envFile, volumes, mounts, tmpfs          []string
	ulimits, capAdd, capDrop, securityOpt, groups         []string
	labels, labelFiles, annotations, logOpts, storageOpts []string
	uidMaps, gidMaps, volumesFrom                         []string

	name, workdir, user, hostname, domainname, entrypoint string
	stopSignal, pull, userns, shmSize, logDriver          string
	cidfile, platform, detachKeys, runtime                string
	subUID, subGID, pid, ipc, uts, cgroupns, volumeDriver string
	stopTimeout, healthRetries                            int
	healthCmd, restart                                    string

	healthInterval, healthTimeout, healthStartPeriod, healthStartInterval time.Duration

	interactive, tty, detach, remove, readOnly, init bool
	sigProxy, quiet, dryRun, trace, noHealthcheck    bool
	privileged                                       bool

	resources *ResourceOptions
	network   networkOptions
	fs        *pflag.FlagSet
}

// RunFlags adds the flags of `create`, and those of `run` as well when run is
// set. Resolve reads them after the parse.
func RunFlags(fs *pflag.FlagSet, run bool) *RunOptions {
	o := &RunOptions{fs: fs}
	o.processFlags(fs)
	o.isolationFlags(fs)
	o.storageFlags(fs)
	o.resources = ResourceFlags(fs)
	o.resources.createFlags(fs)
	fs.StringVar(&o.name, "name", "", "Assign a name to the container")
	fs.StringArrayVarP(&o.labels, "label", "l", nil, "Set meta data on a container")
	fs.StringArrayVar(&o.labelFiles, "label-file", nil, "Read in a line delimited file of labels")
	fs.StringArrayVar(&o.annotations, "annotation", nil, "Add an annotation to the container (passed through to the OCI runtime)")
	fs.BoolVar(&o.remove, "rm", false, "Automatically remove the container when it exits")
	fs.StringVar(&o.cidfile, "cidfile", "", "Write the container ID to the file")
	fs.StringVar(&o.platform, "platform", "", "Set platform if server is multi-platform capable")
	fs.StringVar(&o.pull, "pull", "missing", `Pull image before running ("always", "missing", "never", "newer")`)
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.StringVar(&o.logDriver, "log-driver", "", `Logging driver for the container ("json-file", "local", "journald", "none")`)
	fs.StringArrayVar(&o.logOpts, "log-opt", nil, "Log driver options")
	fs.StringVar(&o.runtime, "runtime", "", "Runtime to use for this container")
	fs.StringVar(&o.restart, "restart", "no", "Restart policy to apply when a container exits")
	o.healthFlags(fs)
	fs.BoolVar(&o.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
	if !run {
		return o
	}
	fs.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	fs.BoolVar(&o.dryRun, "dry-run", false, "Print the plan of the container's start and start nothing")
	fs.BoolVar(&o.trace, "trace", false, "Print the doorways of the start with microseconds")
	return o
}

func (o *RunOptions) processFlags(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&o.attach, "attach", "a", nil, "Attach to STDIN, STDOUT or STDERR")
	fs.BoolVarP(&o.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringArrayVarP(&o.env, "env", "e", nil, "Set environment variables")
	fs.StringArrayVar(&o.envFile, "env-file", nil, "Read in a file of environment variables")
	fs.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.StringVarP(&o.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringArrayVar(&o.groups, "group-add", nil, "Add additional groups to join")
	fs.StringVar(&o.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.StringArrayVar(&o.ulimits, "ulimit", nil, "Ulimit options")
	fs.StringVar(&o.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&o.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.BoolVar(&o.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
}

func (o *RunOptions) isolationFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&o.hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&o.domainname, "domainname", "", "Container NIS domain name")
	fs.StringArrayVar(&o.capAdd, "cap-add", nil, "Add Linux capabilities")
	fs.StringArrayVar(&o.capDrop, "cap-drop", nil, "Drop Linux capabilities")
	fs.StringArrayVar(&o.securityOpt, "security-opt", nil, "Security Options (seccomp=PROFILE, no-new-privileges)")
	o.network.flags(fs)
	fs.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to this container (needs --userns=host)")
	o.identityFlags(fs)
	fs.StringVar(&o.pid, "pid", "", `PID namespace to use ("private", "host", "container:NAME")`)
	fs.StringVar(&o.ipc, "ipc", "", `IPC mode to use ("private", "shareable", "none", "host", "container:NAME")`)
	fs.StringVar(&o.uts, "uts", "", `UTS namespace to use ("private", "host", "container:NAME")`)
	fs.StringVar(&o.cgroupns, "cgroupns", "", `Cgroup namespace to use ("private", "host", "container:NAME")`)
}

func (o *RunOptions) identityFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.userns, "userns", "", `User namespace to use ("host", "private", "auto[:size=N,uidmapping=C:H:N,gidmapping=C:H:N]", `+
		`"keep-id[:uid=N,gid=N,size=N]", "nomap", "container:NAME", "ns:PATH")`)
	fs.StringArrayVar(&o.uidMaps, "uidmap", nil, "Map user ids: [+][u][g]CONTAINER_ID:[@]HOST_ID[:LENGTH][,...]")
	fs.StringArrayVar(&o.gidMaps, "gidmap", nil, "Map group ids: [+][u][g]CONTAINER_ID:[@]HOST_ID[:LENGTH][,...]")
	fs.StringVar(&o.subUID, "subuidname", "", "Map the ranges that this name has in /etc/subuid, from container id 0 upward")
	fs.StringVar(&o.subGID, "subgidname", "", "Map the ranges that this name has in /etc/subgid, from container id 0 upward")
}

func (o *RunOptions) storageFlags(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&o.volumes, "volume", "v", nil, "Bind mount a volume")
	fs.StringArrayVar(&o.mounts, "mount", nil, "Attach a filesystem mount to the container")
	fs.StringArrayVar(&o.volumesFrom, "volumes-from", nil, "Mount volumes from the specified container(s)")
	fs.StringVar(&o.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	fs.StringArrayVar(&o.tmpfs, "tmpfs", nil, "Mount a tmpfs directory")
	fs.BoolVar(&o.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	fs.StringVar(&o.shmSize, "shm-size", "", "Size of /dev/shm")
	fs.StringArrayVar(&o.storageOpts, "storage-opt", nil, "Storage driver options for the container (shift=WAY)")
}

func (o *RunOptions) healthFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.healthCmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&o.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.IntVar(&o.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.DurationVar(&o.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.DurationVar(&o.healthStartPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	fs.DurationVar(&o.healthStartInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
}

// ExecOptions holds the flags of exec as typed.
type ExecOptions struct {
	env, envFile                         []string
	workdir, user, detachKeys            string
	interactive, tty, detach, privileged bool
}

// ExecFlags adds the flags of `exec`.
func ExecFlags(fs *pflag.FlagSet) *ExecOptions {
	o := &ExecOptions{}
	fs.BoolVarP(&o.detach, "detach", "d", false, "Detached mode: run command in the background")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.StringArrayVarP(&o.env, "env", "e", nil, "Set environment variables")
	fs.StringArrayVar(&o.envFile, "env-file", nil, "Read in a file of environment variables")
	fs.BoolVarP(&o.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to the command")
	fs.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringVarP(&o.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	return o
}
