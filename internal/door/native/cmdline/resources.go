package cmdline

import (
	"math/big"
	"path"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"fief/internal/words/record"
)

// ResourceOptions holds the flags of run, create and update that limit what a
// container may use, as typed.
type ResourceOptions struct {
	memory, memorySwap, reservation, kernelMemory         string
	cpus, cpusetCpus, cpusetMems, parent, gpus            string
	shares, period, quota, rtPeriod, rtRuntime, pids      int64
	swappiness                                            int64
	weight                                                uint16
	weightDevices, readBps, writeBps, readIOps, writeIOps []string
	devices, deviceRules, sysctls                         []string
	oomKillDisable                                        bool
	oomScoreAdj                                           int

	fs *pflag.FlagSet
}

// ResourceFlags adds the flags that update has, too. Resolve reads them after the
// parse.
func ResourceFlags(fs *pflag.FlagSet) *ResourceOptions {
	o := &ResourceOptions{fs: fs, swappiness: -1}
	fs.StringVarP(&o.memory, "memory", "m", "", "Memory limit")
	fs.StringVar(&o.memorySwap, "memory-swap", "", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.StringVar(&o.reservation, "memory-reservation", "", "Memory soft limit")
	fs.StringVar(&o.kernelMemory, "kernel-memory", "", "Kernel memory limit (deprecated)")
	fs.Lookup("kernel-memory").Hidden = true
	fs.StringVar(&o.cpus, "cpus", "", "Number of CPUs")
	fs.Int64VarP(&o.shares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Int64Var(&o.period, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&o.quota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&o.rtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&o.rtRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.StringVar(&o.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&o.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Int64Var(&o.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Uint16Var(&o.weight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	return o
}

// createFlags are those that cannot be changed later.
func (o *ResourceOptions) createFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.weightDevices, "blkio-weight-device", nil, "Block IO weight (relative device weight)")
	fs.StringArrayVar(&o.readBps, "device-read-bps", nil, "Limit read rate (bytes per second) from a device")
	fs.StringArrayVar(&o.writeBps, "device-write-bps", nil, "Limit write rate (bytes per second) to a device")
	fs.StringArrayVar(&o.readIOps, "device-read-iops", nil, "Limit read rate (IO per second) from a device")
	fs.StringArrayVar(&o.writeIOps, "device-write-iops", nil, "Limit write rate (IO per second) to a device")
	fs.Int64Var(&o.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.BoolVar(&o.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&o.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.StringArrayVar(&o.devices, "device", nil, "Add a host device to the container (HOST[:CONTAINER[:rwm]])")
	fs.StringVar(&o.gpus, "gpus", "", "GPU devices to add to the container ('all' to pass all GPUs), by the names nvidia.com/gpu=ID of CDI")
	fs.StringArrayVar(&o.deviceRules, "device-cgroup-rule", nil, "Add a rule to the cgroup allowed devices list")
	fs.StringVar(&o.parent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.StringArrayVar(&o.sysctls, "sysctl", nil, "Sysctl options (NAME=VALUE)")
}

// Changed reports whether one of the flags that update has was given.
func (o *ResourceOptions) Changed() bool {
	for _, name := range []string{"memory", "memory-swap", "memory-reservation", "kernel-memory", "cpus", "cpu-shares", "cpu-period", "cpu-quota", "cpu-rt-period",
		"cpu-rt-runtime", "cpuset-cpus", "cpuset-mems", "pids-limit", "blkio-weight"} {
		if o.fs.Changed(name) {
			return true
		}
	}
	return false
}

// Resolve reads the flags. What the machine can do is for the daemon to say.
func (o *ResourceOptions) Resolve() (record.Resources, error) {
	r := record.Resources{
		CPUShares: o.shares, CPUPeriod: o.period, CPUQuota: o.quota, RTPeriod: o.rtPeriod, RTRuntime: o.rtRuntime, CpusetCpus: o.cpusetCpus,
		CpusetMems: o.cpusetMems, BlkioWeight: o.weight, OomKillDisable: o.oomKillDisable, OomScoreAdj: o.oomScoreAdj, Parent: o.parent,
	}
	if o.pids != 0 {
		r.PidsLimit = &o.pids
	}
	for _, part := range []func(*record.Resources) error{o.memories, o.processors, o.blockDevices, o.nodes} {
		if err := part(&r); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (o *ResourceOptions) memories(r *record.Resources) error {
	for _, m := range []struct {
		flag, value string
		to          *int64
		unlimited   bool
	}{
		{"-m, --memory", o.memory, &r.Memory, false}, {"--memory-swap", o.memorySwap, &r.MemorySwap, true},
		{"--memory-reservation", o.reservation, &r.MemoryReservation, false}, {"--kernel-memory", o.kernelMemory, new(int64), false},
	} {
		if m.value == "" {
			continue
		}
		if m.unlimited && m.value == "-1" {
			*m.to = -1
			continue
		}
		n, err := units.RAMInBytes(m.value)
		if err != nil {
			return invalid(m.flag, m.value, err.Error())
		}
		*m.to = n
	}
	if o.swappiness < -1 || o.swappiness > 100 {
		return conflict("invalid value: " + strconv.FormatInt(o.swappiness, 10) + ". Valid memory swappiness range is 0-100")
	}
	if o.swappiness != -1 {
		r.MemorySwappiness = &o.swappiness
	}
	return nil
}

func (o *ResourceOptions) processors(r *record.Resources) (err error) {
	if o.cpus != "" {
		r.NanoCPUs, err = nanoCPUs(o.cpus)
	}
	return err
}

func nanoCPUs(value string) (int64, error) {
	n, ok := new(big.Rat), len(value) < 32 && !strings.ContainsAny(value, "eEpP")
	if ok {
		_, ok = n.SetString(value)
	}
	if !ok {
		return 0, invalid("--cpus", value, "failed to parse "+value+" as a rational number")
	}
	n.Mul(n, big.NewRat(1e9, 1))
	if !n.IsInt() || !n.Num().IsInt64() {
		return 0, invalid("--cpus", value, "value is too precise")
	}
	return n.Num().Int64(), nil
}

func (o *ResourceOptions) blockDevices(r *record.Resources) error {
	for _, v := range o.weightDevices {
		where, value, err := blockDevice("--blkio-weight-device", v)
		if err != nil {
			return err
		}
		n, convErr := strconv.ParseUint(value, 10, 16)
		if convErr != nil || n > 0 && (n < 10 || n > 1000) {
			return invalid("--blkio-weight-device", v, "invalid weight for device: "+v)
		}
		r.BlkioWeightDevice = append(r.BlkioWeightDevice, record.DeviceWeight{Path: where, Weight: uint16(n)})
	}
	for _, t := range []struct {
		flag  string
		list  []string
		to    *[]record.DeviceRate
		bytes bool
	}{
		{"--device-read-bps", o.readBps, &r.ReadBps, true}, {"--device-write-bps", o.writeBps, &r.WriteBps, true},
		{"--device-read-iops", o.readIOps, &r.ReadIOps, false}, {"--device-write-iops", o.writeIOps, &r.WriteIOps, false},
	} {
		for _, v := range t.list {
			rate, err := deviceRate(t.flag, v, t.bytes)
			if err != nil {
				return err
			}
			*t.to = append(*t.to, rate)
		}
	}
	return nil
}

func blockDevice(flag, v string) (where, value string, err error) {
	where, value, ok := strings.Cut(v, ":")
	if !ok || where == "" {
		return "", "", invalid(flag, v, "bad format: "+v)
	}
	if !strings.HasPrefix(where, "/dev/") {
		return "", "", invalid(flag, v, "bad format for device path: "+v)
	}
	return path.Clean(where), value, nil
}

func deviceRate(flag, v string, bytes bool) (record.DeviceRate, error) {
	where, value, err := blockDevice(flag, v)
	if err != nil {
		return record.DeviceRate{}, err
	}
	format, n := "<device-path>:<number>. Number must be a positive integer", int64(-1)
	if bytes {
		format = "<device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
		n, err = units.RAMInBytes(value)
	} else {
		n, err = strconv.ParseInt(value, 10, 64)
	}
	if err != nil || n < 0 {
		return record.DeviceRate{}, invalid(flag, v, "invalid rate for device: "+v+". The correct format is "+format)
	}
	return record.DeviceRate{Path: where, Rate: uint64(n)}, nil
}

// nodes reads --device: HOST[:CONTAINER][:ACCESS].
func (o *ResourceOptions) nodes(r *record.Resources) error {
	for _, v := range o.devices {
		if !path.IsAbs(v) && strings.Contains(v, "=") {
			r.CDI = append(r.CDI, v)
			continue
		}
		parts := strings.Split(v, ":")
		d := record.Device{Host: parts[0], Container: parts[0], Access: "rwm"}
		switch {
		case len(parts) > 3:
			return invalid("--device", v, "bad format for path: "+v)
		case len(parts) == 3:
			d.Container, d.Access = parts[1], parts[2]
		case len(parts) == 2 && record.IsDeviceAccess(parts[1]):
			d.Access = parts[1]
		case len(parts) == 2:
			d.Container = parts[1]
		}
		for _, p := range []string{d.Host, d.Container} {
			if !path.IsAbs(p) {
				return invalid("--device", v, p+" is not an absolute path")
			}
		}
		if !record.IsDeviceAccess(d.Access) {
			return invalid("--device", v, "bad mode specified: "+d.Access)
		}
		r.Devices = append(r.Devices, d)
	}
	for _, v := range o.deviceRules {
		if !record.IsDeviceRule(v) {
			return invalid("--device-cgroup-rule", v, "invalid device cgroup format '"+v+"'")
		}
	}
	r.DeviceRules = o.deviceRules
	if o.gpus == "" {
		return nil
	}
	names, ok := record.GPUs(o.gpus)
	if !ok {
		return invalid("--gpus", o.gpus, "it is all, a number, or device=ID[,ID]")
	}
	r.CDI = append(r.CDI, names...)
	return nil
}

func (o *ResourceOptions) sysctlMap() (map[string]string, error) {
	var out map[string]string
	for _, v := range o.sysctls {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" || strings.ContainsAny(name, "/\x00") || strings.Contains(name, "..") {
			return nil, invalid("--sysctl", v, "sysctl '"+v+"' is not allowed")
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = value
	}
	return out, nil
}
