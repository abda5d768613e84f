package docker

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// limiter is what a running container may use and uses, and its standing still.
type limiter interface {
	Stats(ctx context.Context, id string, stream bool, each func(record.Stats) error) error
	UpdateResources(ctx context.Context, id string, r record.Resources) (warnings []string, err error)
	Pause(ctx context.Context, id string) error
	Unpause(ctx context.Context, id string) error
}

func (d *door) resourceRoutes() []route {
	return []route{
		on("GET /containers/*/stats", d.containerStats),
		on("POST /containers/*/update", d.containerUpdate),
		on("POST /containers/*/pause", func(w http.ResponseWriter, r *request) error {
			return orNoContent(w, d.engine.Pause(r.uncut(), r.name))
		}),
		on("POST /containers/*/unpause", func(w http.ResponseWriter, r *request) error {
			return orNoContent(w, d.engine.Unpause(r.uncut(), r.name))
		}),
	}
}

func orNoContent(w http.ResponseWriter, err error) error {
	if err != nil {
		return err
	}
	return noContent(w)
}

// updateBody is the body of an update, with what the module has lost.
type updateBody struct {
	container.UpdateConfig
	KernelMemory int64
}

func (d *door) containerUpdate(w http.ResponseWriter, r *request) error {
	var body updateBody
	if err := r.body(&body, true); err != nil {
		return err
	}
	policy := ask.RestartPolicy{Name: string(body.RestartPolicy.Name), MaxRetries: body.RestartPolicy.MaximumRetryCount}
	if err := policy.Check(); policy.Name != "" && err != nil {
		return err
	}
	if err := refuseWindows(body.Resources); err != nil {
		return err
	}
	res, err := resourcesAsked(body.Resources)
	if err != nil {
		return err
	}
	if p := body.PidsLimit; p != nil && *p == 0 { // here it says something: no limit
		none := int64(-1)
		res.PidsLimit = &none
	}
	warnings, err := d.engine.UpdateResources(r.uncut(), r.name, res)
	if err == nil && policy.Name != "" {
		err = d.engine.UpdateRestart(r.uncut(), r.name, policy)
	}
	if err != nil {
		return err
	}
	return ok(w, container.UpdateResponse{Warnings: notNil(warnings)})
}

func refuseWindows(r container.Resources) error {
	return refuseSet(
		field{"HostConfig.CpuCount", r.CPUCount != 0, "it is for Windows"},
		field{"HostConfig.CpuPercent", r.CPUPercent != 0, "it is for Windows"},
		field{"HostConfig.IOMaximumIOps", r.IOMaximumIOps != 0, "it is for Windows"},
		field{"HostConfig.IOMaximumBandwidth", r.IOMaximumBandwidth != 0, "it is for Windows"},
	)
}

// resourcesAsked reads the limits of a host config or an update.
func resourcesAsked(h container.Resources) (record.Resources, error) {
	r := record.Resources{
		Memory: h.Memory, MemorySwap: h.MemorySwap, MemoryReservation: h.MemoryReservation, MemorySwappiness: h.MemorySwappiness,
		OomKillDisable: h.OomKillDisable != nil && *h.OomKillDisable, NanoCPUs: h.NanoCPUs, CPUShares: h.CPUShares, CPUPeriod: h.CPUPeriod,
		CPUQuota: h.CPUQuota, RTPeriod: h.CPURealtimePeriod, RTRuntime: h.CPURealtimeRuntime, CpusetCpus: h.CpusetCpus, CpusetMems: h.CpusetMems,
		PidsLimit: h.PidsLimit, BlkioWeight: h.BlkioWeight, ReadBps: ratesAsked(h.BlkioDeviceReadBps), WriteBps: ratesAsked(h.BlkioDeviceWriteBps),
		ReadIOps: ratesAsked(h.BlkioDeviceReadIOps), WriteIOps: ratesAsked(h.BlkioDeviceWriteIOps), Parent: h.CgroupParent,
	}
	if r.PidsLimit != nil && *r.PidsLimit == 0 {
		r.PidsLimit = nil // what old clients send for nothing
	}
	if s := r.MemorySwappiness; s != nil && *s == -1 {
		r.MemorySwappiness = nil
	}
	for _, d := range h.BlkioWeightDevice {
		if d != nil {
			r.BlkioWeightDevice = append(r.BlkioWeightDevice, record.DeviceWeight{Path: d.Path, Weight: d.Weight})
		}
	}
	for _, rule := range h.DeviceCgroupRules {
		if !record.IsDeviceRule(rule) {
			return r, invalid("invalid device cgroup rule format: '%s'", rule)
		}
		r.DeviceRules = append(r.DeviceRules, rule)
	}
	var err error
	if r.CDI, err = namesAsked(h.DeviceRequests); err != nil {
		return r, err
	}
	for _, m := range h.Devices {
		d := record.Device{Host: m.PathOnHost, Container: m.PathInContainer, Access: m.CgroupPermissions}
		if d.Container == "" {
			d.Container = d.Host
		}
		if d.Access == "" {
			d.Access = "rwm"
		}
		if !path.IsAbs(d.Host) || !path.IsAbs(d.Container) || strings.ContainsRune(d.Host+d.Container, 0) || !record.IsDeviceAccess(d.Access) {
			return r, invalid("invalid device mapping %s:%s:%s", d.Host, d.Container, d.Access)
		}
		r.Devices = append(r.Devices, d)
	}
	return r, nil
}

// namesAsked are the devices of CDI that requests stand for. A request for a GPU
// without a driver is one for NVIDIA's, as in Docker.
func namesAsked(list []container.DeviceRequest) (names []string, err error) {
	for _, d := range list {
		gpu := d.Driver == "" || d.Driver == "nvidia"
		var more []string
		ok := true
		switch {
		case d.Driver == "cdi":
			more = d.DeviceIDs
		case gpu && len(d.DeviceIDs) > 0:
			more, ok = record.GPUs("device=" + strings.Join(d.DeviceIDs, ","))
		case gpu && d.Count == -1:
			more, ok = record.GPUs("all")
		case gpu:
			more, ok = record.GPUs(decimal(int64(d.Count)))
		default:
			ok = false
		}
		if !ok || len(more) == 0 {
			return nil, invalid("could not select device driver %q with capabilities: %v", d.Driver, d.Capabilities)
		}
		names = append(names, more...)
	}
	return names, nil
}

func ratesAsked(list []*blkiodev.ThrottleDevice) (out []record.DeviceRate) {
	for _, d := range list {
		if d != nil {
			out = append(out, record.DeviceRate{Path: d.Path, Rate: d.Rate})
		}
	}
	return out
}

// resourcesOf is the other way round, for inspect.
func resourcesOf(r record.Resources) container.Resources {
	out := container.Resources{
		Memory: r.Memory, MemorySwap: r.MemorySwap, MemoryReservation: r.MemoryReservation, MemorySwappiness: r.MemorySwappiness,
		OomKillDisable: &r.OomKillDisable, NanoCPUs: r.NanoCPUs, CPUShares: r.CPUShares, CPUPeriod: r.CPUPeriod, CPUQuota: r.CPUQuota,
		CPURealtimePeriod: r.RTPeriod, CPURealtimeRuntime: r.RTRuntime, CpusetCpus: r.CpusetCpus, CpusetMems: r.CpusetMems, PidsLimit: r.PidsLimit,
		BlkioWeight: r.BlkioWeight, BlkioDeviceReadBps: ratesOf(r.ReadBps), BlkioDeviceWriteBps: ratesOf(r.WriteBps),
		BlkioDeviceReadIOps: ratesOf(r.ReadIOps), BlkioDeviceWriteIOps: ratesOf(r.WriteIOps), CgroupParent: r.Parent, DeviceCgroupRules: r.DeviceRules,
		BlkioWeightDevice: []*blkiodev.WeightDevice{}, Devices: []container.DeviceMapping{},
	}
	if len(r.CDI) > 0 {
		out.DeviceRequests = []container.DeviceRequest{{Driver: "cdi", DeviceIDs: r.CDI}}
	}
	for _, d := range r.BlkioWeightDevice {
		out.BlkioWeightDevice = append(out.BlkioWeightDevice, &blkiodev.WeightDevice{Path: d.Path, Weight: d.Weight})
	}
	for _, d := range r.Devices {
		out.Devices = append(out.Devices, container.DeviceMapping{PathOnHost: d.Host, PathInContainer: d.Container, CgroupPermissions: d.Access})
	}
	return out
}

func ratesOf(list []record.DeviceRate) []*blkiodev.ThrottleDevice {
	out := []*blkiodev.ThrottleDevice{}
	for _, d := range list {
		out = append(out, &blkiodev.ThrottleDevice{Path: d.Path, Rate: d.Rate})
	}
	return out
}

// errEnough ends a stream of statistics whose last sample was wanted.
var errEnough = errors.New("enough")

// containerStats sends a sample each second. Without a stream it is one, taken
// after another, so that it tells what was used meanwhile; unless one-shot says
// that nobody asks for that.
func (d *door) containerStats(w http.ResponseWriter, r *request) error {
	stream := !r.Form.Has("stream") || r.truth("stream")
	wanted := 2
	if r.truth("one-shot") {
		wanted = 1
	}
	var last record.Stats
	enc, count := json.NewEncoder(w), 0
	err := d.engine.Stats(r.Context(), r.name, stream || wanted > 1, func(s record.Stats) error {
		count++
		before := last
		last = s
		if !stream && count < wanted && !s.Read.IsZero() {
			return nil
		}
		if count == 1 || !stream {
			w.Header().Set("Content-Type", "application/json")
		}
		if err := enc.Encode(statsOf(s, before)); err != nil {
			return errEnough // the client has gone
		}
		flush(w)
		if !stream {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// statsResponse is a sample as clients before API 1.52 read it.
type statsResponse struct {
	container.StatsResponse
	NumProcs     uint32                 `json:"num_procs"`
	StorageStats container.StorageStats `json:"storage_stats"`
	PreCPUStats  container.CPUStats     `json:"precpu_stats"`
	PreRead      time.Time              `json:"preread"`
}

func statsOf(s, before record.Stats) statsResponse {
	out := statsResponse{PreCPUStats: cpuStatsOf(before), PreRead: before.Read}
	out.ID, out.Name, out.Read, out.OSType = s.ID, "/"+s.Name, s.Read, "linux"
	out.CPUStats = cpuStatsOf(s)
	out.MemoryStats = container.MemoryStats{Usage: s.Memory.Usage, MaxUsage: s.Memory.Max, Limit: s.Memory.Limit, Failcnt: s.Memory.Failures, Stats: s.Memory.Details}
	out.PidsStats = container.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit}
	for _, b := range s.Blkio {
		entry := container.BlkioStatEntry{Major: b.Major, Minor: b.Minor, Op: b.Op, Value: b.Bytes}
		out.BlkioStats.IoServiceBytesRecursive = append(out.BlkioStats.IoServiceBytesRecursive, entry)
		entry.Value = b.Count
		out.BlkioStats.IoServicedRecursive = append(out.BlkioStats.IoServicedRecursive, entry)
	}
	return out
}

func cpuStatsOf(s record.Stats) container.CPUStats {
	return container.CPUStats{
		CPUUsage:    container.CPUUsage{TotalUsage: s.CPU.Total, UsageInKernelmode: s.CPU.System, UsageInUsermode: s.CPU.User},
		SystemUsage: s.SystemCPU, OnlineCPUs: uint32(s.Online),
		ThrottlingData: container.ThrottlingData{Periods: s.CPU.Periods, ThrottledPeriods: s.CPU.Throttled, ThrottledTime: s.CPU.ThrottledTime},
	}
}
