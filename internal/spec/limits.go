package spec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Resources are the limits of a container in the form of its OCI configuration,
// without device rules; nil when it has none. Block devices are looked up: one
// that is not there is an Invalid fault, in Docker's words.
//
// A field that asks for nothing is left out, so that limits can be changed one by
// one: see Update in the engine.
func Resources(r record.Resources) (*specs.LinuxResources, error) {
	if !r.Limited() {
		return nil, nil
	}
	out := &specs.LinuxResources{Memory: memoryOf(r), CPU: cpuOf(r)}
	if r.PidsLimit != nil {
		limit := *r.PidsLimit
		if limit <= 0 {
			limit = -1
		}
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	var err error
	out.BlockIO, err = blockIOOf(r)
	return out, err
}

// some is a pointer to a number that asks for something, else nil.
func some[T int64 | uint64](n T) *T {
	if n == 0 {
		return nil
	}
	return &n
}

func memoryOf(r record.Resources) *specs.LinuxMemory {
	m := specs.LinuxMemory{Limit: some(r.Memory), Swap: some(r.MemorySwap), Reservation: some(r.MemoryReservation)}
	if s := r.MemorySwappiness; s != nil && *s >= 0 {
		m.Swappiness = some(uint64(*s))
		if *s == 0 {
			m.Swappiness = new(uint64)
		}
	}
	if r.OomKillDisable {
		m.DisableOOMKiller = &r.OomKillDisable
	}
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

// nanoPeriod is the period of --cpus, in microseconds.
const nanoPeriod = 100000

func cpuOf(r record.Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{
		Shares: some(uint64(r.CPUShares)), Period: some(uint64(r.CPUPeriod)), Quota: some(r.CPUQuota),
		RealtimePeriod: some(uint64(r.RTPeriod)), RealtimeRuntime: some(r.RTRuntime), Cpus: r.CpusetCpus, Mems: r.CpusetMems,
	}
	if r.NanoCPUs > 0 {
		c.Period, c.Quota = some(uint64(nanoPeriod)), some(r.NanoCPUs*nanoPeriod/1e9)
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func blockIOOf(r record.Resources) (*specs.LinuxBlockIO, error) {
	b := &specs.LinuxBlockIO{}
	if r.BlkioWeight != 0 {
		b.Weight = &r.BlkioWeight
	}
	for _, d := range r.BlkioWeightDevice {
		major, minor, err := deviceAt(d.Path)
		if err != nil {
			return nil, err
		}
		w := specs.LinuxWeightDevice{Weight: &d.Weight}
		w.Major, w.Minor = major, minor
		b.WeightDevice = append(b.WeightDevice, w)
	}
	for _, t := range []struct {
		from []record.DeviceRate
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.ReadBps, &b.ThrottleReadBpsDevice}, {r.WriteBps, &b.ThrottleWriteBpsDevice},
		{r.ReadIOps, &b.ThrottleReadIOPSDevice}, {r.WriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			major, minor, err := deviceAt(d.Path)
			if err != nil {
				return nil, err
			}
			limit := specs.LinuxThrottleDevice{Rate: d.Rate}
			limit.Major, limit.Minor = major, minor
			*t.to = append(*t.to, limit)
		}
	}
	if b.Weight == nil && len(b.WeightDevice)+len(b.ThrottleReadBpsDevice)+len(b.ThrottleWriteBpsDevice)+len(b.ThrottleReadIOPSDevice)+len(b.ThrottleWriteIOPSDevice) == 0 {
		return nil, nil
	}
	return b, nil
}

// deviceAt is the number of a block device.
func deviceAt(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	err = unix.Stat(path, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFBLK {
		err = errors.New("not a block device")
	}
	if err != nil {
		return 0, 0, fault.Say(fault.Invalid, fmt.Sprintf("failed to look up block device %q: %v", path, err))
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}

// allowedSysctls are those of the ipc namespace (ipc_namespaces(7)); all of "net."
// are left to the network namespace, as in Docker.
var allowedSysctls = map[string]bool{
	"kernel.msgmax": true, "kernel.msgmnb": true, "kernel.msgmni": true, "kernel.sem": true,
	"kernel.shmall": true, "kernel.shmmax": true, "kernel.shmmni": true, "kernel.shm_rmid_forced": true,
}

// CheckSysctl refuses a setting that does not belong to a namespace of the
// container's own, in Docker's words.
func CheckSysctl(name string, c record.Container) error {
	switch net := strings.HasPrefix(name, "net."); {
	case net && foreign(c.Network):
		return fault.Say(fault.Invalid, fmt.Sprintf("sysctl '%s' is not allowed: the network namespace is not the container's own", name))
	case net:
		return nil
	case !allowedSysctls[name] && !strings.HasPrefix(name, "fs.mqueue."):
		return fault.Say(fault.Invalid, fmt.Sprintf("sysctl '%s' is not allowed", name))
	case foreign(c.IPCMode):
		return fault.Say(fault.Invalid, fmt.Sprintf("sysctl '%s' is not allowed: the ipc namespace is not the container's own", name))
	}
	return nil
}
