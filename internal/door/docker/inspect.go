package docker

import (
	"cmp"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// inspectResponse is a container as API 1.51 shows it. UserNamespace is this
// engine's own: no Docker API says which host ids a container has.
type inspectResponse struct {
	container.InspectResponse
	HostConfig      *hostConfig
	NetworkSettings networkSettings
	UserNamespace   userNamespace
}

// hostConfig is Docker's, and the id maps where Podman shows them.
type hostConfig struct {
	container.HostConfig
	Mounts     []mountShown `json:",omitempty"`
	IDMappings *idMappings  `json:",omitempty"` // nil on the host's ids
}

// idMappings is Podman's list of spans, each CONTAINER_ID:HOST_ID:LENGTH.
type idMappings struct{ UidMap, GidMap []string }

// networkSettings is what clients before API 1.52 read: the settings of the
// default bridge, flat beside the networks.
type networkSettings struct {
	Bridge                 string
	SandboxID              string
	SandboxKey             string
	Ports                  network.PortMap
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
	Networks               map[string]*network.EndpointSettings
}

// userNamespace shows the id map, each span as CONTAINER_ID:HOST_ID:LENGTH.
type userNamespace struct {
	Mode   string
	UIDMap []string
	GIDMap []string
}

func inspectOf(c record.Container) inspectResponse {
	platform, _, _ := strings.Cut(c.Platform, "/")
	return inspectResponse{
		InspectResponse: container.InspectResponse{
			ID: c.ID, Created: stamp(c.Created), Path: c.Path, Args: notNil(c.Args), State: stateOf(c.State), Image: c.ImageID,
			LogPath: logPathOf(c), Name: "/" + c.Name, RestartCount: c.State.Restarts, Driver: storageDriver,
			Platform: cmp.Or(platform, "linux"), ExecIDs: c.Execs,
			GraphDriver: &storage.DriverData{Name: storageDriver, Data: shiftOf(c.Rootfs)},
			Mounts:      mountPoints(c), Config: configOf(c),
		},
		HostConfig:      hostConfigOf(c),
		NetworkSettings: networkSettingsOf(c),
		UserNamespace:   userNamespace{Mode: c.Identity.Mode, UIDMap: spansOf(c.Identity.UID), GIDMap: spansOf(c.Identity.GID)},
	}
}

func spansOf(spans []idmap.Span) []string {
	out := []string{}
	for _, s := range spans {
		out = append(out, s.String())
	}
	return out
}

// shiftOf says how the image's files appear under the container's ids.
func shiftOf(r record.Rootfs) map[string]string {
	data := map[string]string{"Shift": r.Way}
	if r.Why != "" {
		data["ShiftWhy"] = r.Why
	}
	return data
}

func stateOf(s record.State) *container.State {
	return &container.State{
		Health: healthOf(s.Health),
		Status: container.ContainerState(s.Word()), Running: s.Up(), Paused: s.Paused, Restarting: s.Status == record.Restarting, OOMKilled: s.OOMKilled,
		Dead: s.Status == record.Dead, Pid: s.PID, ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: stamp(s.StartedAt), FinishedAt: stamp(s.FinishedAt),
	}
}

func healthOf(h *record.HealthState) *container.Health {
	if h == nil {
		return nil
	}
	out := &container.Health{Status: container.HealthStatus(h.Status), FailingStreak: h.FailingStreak, Log: []*container.HealthcheckResult{}}
	for _, r := range h.Log {
		out.Log = append(out.Log, &container.HealthcheckResult{Start: r.Start, End: r.End, ExitCode: r.ExitCode, Output: r.Output})
	}
	return out
}

func healthConfigOf(h *record.Health) *container.HealthConfig {
	if h == nil {
		return nil
	}
	out := container.HealthConfig(*h)
	return &out
}

func configOf(c record.Container) *container.Config {
	return &container.Config{
		Hostname: c.Hostname, Domainname: c.Domainname, User: c.User,
		AttachStdin: c.AttachStdin, AttachStdout: c.AttachStdout, AttachStderr: c.AttachStderr,
		Tty: c.TTY, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce, Env: notNil(c.Env), Cmd: c.Cmd, Image: c.Image,
		WorkingDir: c.WorkDir, Entrypoint: c.Entrypoint, Labels: labelsOf(c.Labels), ExposedPorts: exposedOf(c),
		StopSignal: c.StopSignal, StopTimeout: c.StopTimeout, Healthcheck: healthConfigOf(c.Health),
		Volumes: volumeConfig(c),
	}
}

// hostConfigOf tells back what was asked, as far as a record keeps it; a tool
// that makes a new container of this answer gets the same container.
func hostConfigOf(c record.Container) *hostConfig {
	h := &hostConfig{HostConfig: dockerConfigOf(c)}
	for _, u := range c.Ulimits {
		h.Ulimits = append(h.Ulimits, &units.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, m := range c.Mounts {
		addMount(h, m)
	}
	if len(c.Identity.UID)+len(c.Identity.GID) > 0 {
		h.IDMappings = &idMappings{UidMap: spansOf(c.Identity.UID), GidMap: spansOf(c.Identity.GID)}
	}
	return h
}

// dockerConfigOf is the part of a host config that is not a list of things.
func dockerConfigOf(c record.Container) container.HostConfig {
	init := c.Init
	return container.HostConfig{
		LogConfig:   container.LogConfig{Type: cmp.Or(c.Log.Driver, "json-file"), Config: logOptsOf(c.Log)},
		NetworkMode: container.NetworkMode(c.Network), PortBindings: portsAsked(c), PublishAllPorts: c.Net.PublishAll, Links: c.Net.Links, ExtraHosts: c.Net.Hosts,
		DNS: dnsOf(c), DNSOptions: notNil(c.Net.DNSOptions), DNSSearch: notNil(c.Net.DNSSearch),
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(cmp.Or(c.Restart, "no")), MaximumRetryCount: c.RestartMax},
		VolumesFrom:   c.VolumesFrom, AutoRemove: c.AutoRemove, Annotations: c.Annotations, CapAdd: c.CapAdd, CapDrop: c.CapDrop,
		PidMode: container.PidMode(c.PIDMode), IpcMode: container.IpcMode(cmp.Or(c.IPCMode, "shareable")),
		UTSMode: container.UTSMode(c.UTSMode), CgroupnsMode: container.CgroupnsMode(cmp.Or(c.CgroupnsMode, "private")),
		GroupAdd: c.Groups, ReadonlyRootfs: c.ReadOnly, Privileged: c.Privileged,
		SecurityOpt: securityOptOf(c), UsernsMode: container.UsernsMode(usernsModeOf(c)),
		ShmSize: cmp.Or(c.ShmSize, 64<<20), Runtime: c.Runtime, Init: &init, Sysctls: c.Sysctls,
		Resources: resourcesOf(c.Resources), OomScoreAdj: c.Resources.OomScoreAdj,
	}
}

func logOptsOf(l record.Log) map[string]string {
	if l.Options == nil {
		return map[string]string{}
	}
	return l.Options
}

// logPathOf: Docker shows the file of json-file alone.
func logPathOf(c record.Container) string {
	if c.Log.Driver != "json-file" {
		return ""
	}
	return c.LogPath
}
