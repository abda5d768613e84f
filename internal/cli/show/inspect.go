package show

import (
	"time"

	"fief/internal/words/record"
)

// inspected is a container as docker's inspect shows it, and under Fief what
// docker has no field for.
type inspected struct {
	ID              string `json:"Id"`
	Created         string
	Path            string
	Args            []string
	State           state
	Image           string
	LogPath         string
	Name            string
	RestartCount    int
	Driver          string
	Platform        string
	ExecIDs         []string
	HostConfig      hostConfig
	GraphDriver     graphDriver
	Mounts          []mountPoint
	Config          config
	NetworkSettings networkSettings
	Fief            ids
}

type state struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Dead       bool
	Pid        int
	ExitCode   int
	Error      string
	StartedAt  string
	FinishedAt string
	Health     *record.HealthState `json:",omitempty"`
}

type hostConfig struct {
	LogConfig      logConfig
	NetworkMode    string
	RestartPolicy  restartPolicy
	AutoRemove     bool
	VolumesFrom    []string
	Annotations    map[string]string `json:",omitempty"`
	CapAdd         []string
	CapDrop        []string
	GroupAdd       []string
	ReadonlyRootfs bool
	SecurityOpt    []string
	UsernsMode     string
	IDMappings     *idMappings `json:",omitempty"`
	ShmSize        int64
	Runtime        string
	Ulimits        []record.Ulimit
	Init           bool
	Sysctls        map[string]string `json:",omitempty"`
	resources
}

// idMappings are the lines of uid_map and gid_map in podman's form; a container
// with the host's ids has none.
type idMappings struct {
	UIDMap []string `json:"UidMap"`
	GIDMap []string `json:"GidMap"`
}

type logConfig struct {
	Type   string
	Config map[string]string
}

type restartPolicy struct {
	Name              string
	MaximumRetryCount int
}

type graphDriver struct {
	Name string
	Data map[string]string
}

type mountPoint struct {
	Type        string
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
}

type config struct {
	Hostname     string
	Domainname   string
	User         string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Env          []string
	Cmd          []string
	Image        string
	WorkingDir   string
	Entrypoint   []string
	Labels       map[string]string
	StopSignal   string `json:",omitempty"`
	StopTimeout  *int   `json:",omitempty"`

	Healthcheck *record.Health `json:",omitempty"`
}

type ids struct {
	Identity record.Identity
	Rootfs   record.Rootfs
	Manifest string
}

// Inspected returns the object that `inspect` prints for a container.
func Inspected(c record.Container) any {
	return inspected{
		ID: c.ID, Created: stamp(c.Created), Path: c.Path, Args: list(c.Args), State: stateOf(c.State), Image: c.ImageID,
		LogPath: c.LogPath, Name: "/" + c.Name, RestartCount: c.State.Restarts, Driver: "overlay2", Platform: "linux",
		ExecIDs: c.Execs, HostConfig: hostConfigOf(c), Mounts: mountPoints(c.Mounts), Config: configOf(c),
		GraphDriver:     graphDriver{Name: "overlay2", Data: map[string]string{"Shift": c.Rootfs.Way, "Why": c.Rootfs.Why}},
		NetworkSettings: networkSettingsOf(c),
		Fief:            ids{c.Identity, c.Rootfs, c.Manifest},
	}
}

func stateOf(s record.State) state {
	return state{
		Health: s.Health,
		Status: s.Word(), Running: s.Up(), Paused: s.Paused, Restarting: s.Status == record.Restarting, OOMKilled: s.OOMKilled, Dead: s.Status == record.Dead,
		Pid: s.PID, ExitCode: s.ExitCode, Error: s.Error, StartedAt: stamp(s.StartedAt), FinishedAt: stamp(s.FinishedAt),
	}
}

func hostConfigOf(c record.Container) hostConfig {
	mode := c.Identity.Asked
	if mode == "" && (c.Identity.Mode == "host" || c.Identity.Mode == "auto") {
		mode = c.Identity.Mode
	}
	var ids *idMappings
	if len(c.Identity.UID) > 0 || len(c.Identity.GID) > 0 {
		ids = &idMappings{Mappings(c.Identity.UID), Mappings(c.Identity.GID)}
	}
	return hostConfig{
		LogConfig: logConfig{c.Log.Driver, c.Log.Options}, NetworkMode: c.Network,
		RestartPolicy: restartPolicy{c.Restart, c.RestartMax}, AutoRemove: c.AutoRemove, VolumesFrom: c.VolumesFrom, Annotations: c.Annotations,
		CapAdd: c.CapAdd, CapDrop: c.CapDrop, GroupAdd: c.Groups, ReadonlyRootfs: c.ReadOnly, SecurityOpt: c.SecurityOpt,
		UsernsMode: mode, IDMappings: ids, ShmSize: c.ShmSize, Runtime: c.Runtime, Ulimits: c.Ulimits, Init: c.Init,
		Sysctls: c.Sysctls, resources: resourcesOf(c.Resources),
	}
}

func configOf(c record.Container) config {
	labels := c.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return config{
		Hostname: c.Hostname, Domainname: c.Domainname, User: c.User, AttachStdin: c.AttachStdin, AttachStdout: c.AttachStdout,
		AttachStderr: c.AttachStderr, Tty: c.TTY, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce, Env: list(c.Env), Cmd: c.Cmd,
		Image: c.Image, WorkingDir: c.WorkDir, Entrypoint: c.Entrypoint, Labels: labels, StopSignal: c.StopSignal, StopTimeout: c.StopTimeout, Healthcheck: c.Health,
	}
}

func mountPoints(ms []record.Mount) []mountPoint {
	out := []mountPoint{}
	for _, m := range ms {
		out = append(out, mountPoint{m.Kind, m.Name, m.Source, m.Target, m.Driver, modeOf(m), !m.ReadOnly, m.Propagation})
	}
	return out
}

// inspectedImage is an image as docker's inspect shows it.
type inspectedImage struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Comment      string
	Created      string
	Author       string
	Config       imageConfig
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	Size         int64
	RootFS       rootFS
	Metadata     metadata
}

type imageConfig struct {
	User         string
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Env          []string
	Cmd          []string
	Volumes      map[string]struct{} `json:",omitempty"`
	WorkingDir   string
	Entrypoint   []string
	Labels       map[string]string
	StopSignal   string   `json:",omitempty"`
	Shell        []string `json:",omitempty"`

	Healthcheck *record.Health `json:",omitempty"`
}

type rootFS struct {
	Type   string
	Layers []string
}

type metadata struct{ LastTagTime string }

// InspectedImage returns the object that `inspect` prints for an image.
func InspectedImage(i record.Image) any {
	out := inspectedImage{
		ID: i.ID, RepoTags: []string{}, RepoDigests: []string{}, Comment: i.Comment, Created: stamp(i.Created), Author: i.Author,
		Architecture: i.Arch, Variant: i.Variant, Os: i.OS, Size: i.Size, RootFS: rootFS{Type: "layers"}, Metadata: metadata{stamp(i.Pulled)},
		Config: imageConfig{
			User: i.Config.User, ExposedPorts: set(i.Config.ExposedPorts), Env: list(i.Config.Env), Cmd: i.Config.Cmd, Volumes: set(i.Config.Volumes),
			WorkingDir: i.Config.WorkDir, Entrypoint: i.Config.Entrypoint, Labels: i.Config.Labels, StopSignal: i.Config.StopSignal, Shell: i.Config.Shell, Healthcheck: i.Config.Health,
		},
	}
	for _, n := range i.Names {
		out.RepoTags = append(out.RepoTags, Familiar(n))
	}
	for _, d := range i.Digests {
		out.RepoDigests = append(out.RepoDigests, Familiar(d))
	}
	for _, l := range i.Layers {
		out.RootFS.Layers = append(out.RootFS.Layers, l.DiffID)
	}
	return out
}

func set(names []string) map[string]struct{} {
	out := map[string]struct{}{}
	for _, n := range names {
		out[n] = struct{}{}
	}
	return out
}

func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// stamp is docker's form of a time; none is 0001-01-01T00:00:00Z.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// resources are docker's names for limits.
type resources struct {
	CPUShares            int64 `json:"CpuShares"`
	Memory               int64
	NanoCPUs             int64 `json:"NanoCpus"`
	CgroupParent         string
	BlkioWeight          uint16
	BlkioWeightDevice    []record.DeviceWeight
	BlkioDeviceReadBps   []record.DeviceRate
	BlkioDeviceWriteBps  []record.DeviceRate
	BlkioDeviceReadIOps  []record.DeviceRate
	BlkioDeviceWriteIOps []record.DeviceRate
	CPUPeriod            int64 `json:"CpuPeriod"`
	CPUQuota             int64 `json:"CpuQuota"`
	CPURealtimePeriod    int64 `json:"CpuRealtimePeriod"`
	CPURealtimeRuntime   int64 `json:"CpuRealtimeRuntime"`
	CpusetCpus           string
	CpusetMems           string
	Devices              []deviceMapping
	DeviceCgroupRules    []string
	MemoryReservation    int64
	MemorySwap           int64
	MemorySwappiness     *int64
	OomKillDisable       bool
	OomScoreAdj          int
	PidsLimit            *int64
}

type deviceMapping struct{ PathOnHost, PathInContainer, CgroupPermissions string }

func resourcesOf(r record.Resources) resources {
	out := resources{
		CPUShares: r.CPUShares, Memory: r.Memory, NanoCPUs: r.NanoCPUs, CgroupParent: r.Parent, BlkioWeight: r.BlkioWeight,
		BlkioWeightDevice: notNull(r.BlkioWeightDevice), BlkioDeviceReadBps: notNull(r.ReadBps), BlkioDeviceWriteBps: notNull(r.WriteBps),
		BlkioDeviceReadIOps: notNull(r.ReadIOps), BlkioDeviceWriteIOps: notNull(r.WriteIOps), CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota,
		CPURealtimePeriod: r.RTPeriod, CPURealtimeRuntime: r.RTRuntime, CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems, Devices: []deviceMapping{},
		DeviceCgroupRules: r.DeviceRules, MemoryReservation: r.MemoryReservation, MemorySwap: r.MemorySwap, MemorySwappiness: r.MemorySwappiness,
		OomKillDisable: r.OomKillDisable, OomScoreAdj: r.OomScoreAdj, PidsLimit: r.PidsLimit,
	}
	for _, d := range r.Devices {
		out.Devices = append(out.Devices, deviceMapping{d.Host, d.Container, d.Access})
	}
	return out
}

func notNull[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// modeOf is the mode of a mount as docker's inspect has it.
func modeOf(m record.Mount) string {
	switch {
	case m.ReadOnly:
		return "ro"
	case m.Kind == "volume":
		return "z"
	}
	return ""
}
