package docker

import (
	"cmp"
	"encoding/json"
	"path"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"fief/internal/words/ask"
	"fief/internal/words/ref"
)

// createBody is the body of a create: the module's types, and what they have
// lost or not got yet but clients send, so that none of it is dropped unseen.
type createBody struct {
	*container.Config
	Cmd              words
	Entrypoint       words
	MacAddress       string // API before 1.44
	HostConfig       *hostBody
	NetworkingConfig *network.NetworkingConfig
}

type hostBody struct {
	container.HostConfig
	KernelMemory    int64 // API before 1.42
	KernelMemoryTCP int64
	Mounts          []mountBody
}

type mountBody struct {
	mount.Mount
	BindOptions *bindBody
}

// bindBody has the id map of a mount that is proposed for Docker (moby#53368).
type bindBody struct {
	mount.BindOptions
	IDMapping json.RawMessage
}

// words is a list of strings that old clients send as one string.
type words []string

// UnmarshalJSON implements json.Unmarshaler.
func (w *words) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		if string(b) != "null" {
			*w = words{one}
		}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

// ask turns the body into a complete ask. What it returns as warnings the
// client is shown.
func (b *createBody) ask(name, platform string) (ask.Container, []string, error) {
	if b.Config == nil {
		return ask.Container{}, nil, invalid("config cannot be empty in order to create a container")
	}
	if b.HostConfig == nil {
		b.HostConfig = &hostBody{}
	}
	for _, check := range []func() error{b.checkJoined, b.HostConfig.checkLimits, b.HostConfig.checkRest} {
		if err := check(); err != nil {
			return ask.Container{}, nil, err
		}
	}
	a, err := b.process(trimSlash(name), platform)
	if err != nil {
		return a, nil, err
	}
	if err := b.HostConfig.fill(&a, b.Volumes); err != nil {
		return a, nil, err
	}
	var warnings []string
	if b.HostConfig.KernelMemory > 0 {
		warnings = append(warnings, "Specifying a kernel memory limit is deprecated and will be removed in a future release.")
	}
	return a, warnings, b.HostConfig.spaces(&a)
}

// process fills the half of an ask that Config holds.
func (b *createBody) process(name, platform string) (ask.Container, error) {
	a := ask.Container{
		Name: name, Image: b.Image, Platform: platform, Pull: ask.PullNever, // `docker run` pulls by itself after a 404
		Entrypoint: b.Entrypoint, ReplaceEntry: b.Entrypoint != nil, Cmd: b.Cmd,
		Env: b.Env, User: b.User, Hostname: b.Hostname, Domainname: b.Domainname, Labels: b.Labels,
		StopSignal: b.StopSignal, StopTimeout: b.StopTimeout,
		TTY: b.Tty, OpenStdin: b.OpenStdin, StdinOnce: b.StdinOnce,
		AttachStdin: b.AttachStdin, AttachStdout: b.AttachStdout, AttachStderr: b.AttachStderr,
	}
	if b.Healthcheck != nil {
		h := ask.Health(*b.Healthcheck)
		a.Health = &h
	}
	if err := a.Health.Check(); err != nil {
		return a, err
	}
	if len(a.Cmd) == 0 {
		a.Cmd = nil
	}
	if len(a.Entrypoint) == 1 && a.Entrypoint[0] == "" { // `--entrypoint ""`
		a.Entrypoint = nil
	}
	if name != "" {
		if err := ref.CheckName(name); err != nil {
			return a, err
		}
	}
	if b.Image == "" {
		return a, invalid("no image specified")
	}
	for _, kv := range b.Env {
		if kv == "" || kv[0] == '=' {
			return a, invalid("invalid environment variable: %s", kv)
		}
	}
	if b.WorkingDir != "" {
		if !path.IsAbs(b.WorkingDir) {
			return a, invalid("the working directory '%s' is invalid, it needs to be an absolute path", b.WorkingDir)
		}
		a.WorkDir = path.Clean(b.WorkingDir)
	}
	return a, b.networking(&a)
}

// fill adds the half of an ask that HostConfig holds.
func (h *hostBody) fill(a *ask.Container, anonymous map[string]struct{}) (err error) {
	a.Groups, a.Annotations = h.GroupAdd, h.Annotations
	a.ReadOnly, a.AutoRemove, a.Runtime = h.ReadonlyRootfs, h.AutoRemove, h.Runtime
	a.CapAdd, a.CapDrop = h.CapAdd, h.CapDrop
	a.Init = h.Init != nil && *h.Init
	a.Shift = h.StorageOpt["shift"]
	a.Restart = ask.RestartPolicy{Name: cmp.Or(string(h.RestartPolicy.Name), "no"), MaxRetries: h.RestartPolicy.MaximumRetryCount}
	if err := a.Restart.Check(); err != nil {
		return err
	}
	if h.ShmSize < 0 {
		return invalid("SHM size can not be less than 0")
	}
	a.ShmSize = h.ShmSize
	a.Sysctls = h.Sysctls
	if a.Resources, err = resourcesAsked(h.Resources); err != nil {
		return err
	}
	a.Resources.OomScoreAdj = h.OomScoreAdj
	if a.ConsoleSize, err = consoleSize(&h.ConsoleSize); err != nil {
		return err
	}
	a.Log = ask.Log{Driver: h.LogConfig.Type, Options: h.LogConfig.Config}
	if a.Ulimits, err = ulimitsAsked(h.Ulimits); err != nil {
		return err
	}
	if a.Mounts, err = h.mounts(anonymous); err != nil {
		return err
	}
	if a.VolumesFrom, err = volumesFromAsked(h.VolumesFrom); err != nil {
		return err
	}
	a.VolumeDriver = h.VolumeDriver
	sec, err := parseSecurity(h.SecurityOpt)
	if err != nil {
		return err
	}
	a.Seccomp, a.NoNewPrivs = sec.seccomp, sec.noNewPrivs
	a.Userns, err = usernsAsked(string(h.UsernsMode), sec, h.Annotations)
	return err
}

func consoleSize(size *[2]uint) (out [2]uint16, err error) {
	if size == nil {
		return out, nil
	}
	if size[0] > 65535 || size[1] > 65535 {
		return out, invalid("invalid ConsoleSize %v: rows and columns go up to 65535", *size)
	}
	return [2]uint16{uint16(size[0]), uint16(size[1])}, nil
}

func ulimitsAsked(list []*container.Ulimit) ([]ask.Ulimit, error) {
	var out []ask.Ulimit
	for _, u := range list {
		if u == nil || u.Name == "" {
			return nil, invalid("invalid Ulimits: an entry has no name")
		}
		if u.Hard >= 0 && (u.Soft > u.Hard || u.Soft < 0) {
			return nil, invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
		out = append(out, ask.Ulimit{Name: strings.ToLower(u.Name), Soft: u.Soft, Hard: u.Hard})
	}
	return out, nil
}
