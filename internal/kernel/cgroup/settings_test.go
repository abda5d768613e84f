package cgroup

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
)

func v2(string) version { return inV2 }
func v1(string) version { return inV1 }

func unsigned(n uint64) *uint64 { return &n }

func text(list []setting) string {
	var out []string
	for _, s := range list {
		out = append(out, s.file+"="+s.value)
	}
	return strings.Join(out, "; ")
}

func TestSettings(t *testing.T) {
	weight, leaf, on := uint16(500), uint16(10), true
	throttle := func(major, minor int64, rate uint64) []specs.LinuxThrottleDevice {
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = major, minor
		return []specs.LinuxThrottleDevice{d}
	}
	heavy := specs.LinuxWeightDevice{Weight: &weight}
	heavy.Major, heavy.Minor = 8, 16
	for _, c := range []struct {
		r      *specs.LinuxResources
		v1, v2 string // empty: an error; "-": nothing
	}{
		{nil, "-", "-"},
		{&specs.LinuxResources{}, "-", "-"},
		{&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(100), Swap: number(150), Reservation: number(50)}},
			"memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=150; memory.soft_limit_in_bytes=50", "memory.max=100; memory.low=50; memory.swap.max=50"},
		{&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(100), Swap: number(100)}},
			"memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=100", "memory.max=100; memory.swap.max=0"},
		{&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(100), Swap: number(-1)}},
			"memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=-1", "memory.max=100; memory.swap.max=max"},
		{&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(-1)}},
			"memory.limit_in_bytes=-1; memory.memsw.limit_in_bytes=-1", "memory.max=max; memory.swap.max=max"},
		{&specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: number(100)}}, "memory.memsw.limit_in_bytes=100", ""},
		{&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(100), Swap: number(99)}}, "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=99", ""},
		{&specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: unsigned(0)}}, "memory.swappiness=0", ""},
		{&specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: &on}}, "memory.oom_control=1", ""},
		{&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: unsigned(1024)}}, "cpu.shares=1024", "cpu.weight=100"},
		{&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: unsigned(1024), Idle: number(1)}}, "cpu.idle=1", "cpu.idle=1"},
		{&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: number(5000)}}, "cpu.cfs_quota_us=5000", "cpu.max=5000 100000"},
		{&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: number(-1), Period: unsigned(50000), Burst: unsigned(7)}},
			"cpu.cfs_period_us=50000; cpu.cfs_quota_us=-1; cpu.cfs_burst_us=7", "cpu.max=max 50000; cpu.max.burst=7"},
		{&specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimePeriod: unsigned(10), RealtimeRuntime: number(5)}}, "cpu.rt_period_us=10; cpu.rt_runtime_us=5", ""},
		{&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1", Mems: "0"}}, "cpuset.cpus=0-1; cpuset.mems=0", "cpuset.cpus=0-1; cpuset.mems=0"},
		{&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: number(5)}}, "pids.max=5", "pids.max=5"},
		{&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: number(-1)}}, "pids.max=max", "pids.max=max"},
		{&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: &weight, WeightDevice: []specs.LinuxWeightDevice{heavy}}},
			"blkio.weight|blkio.bfq.weight=500|500; blkio.weight_device|blkio.bfq.weight_device=8:16 500|8:16 500",
			"io.bfq.weight|io.weight=500|default 4950; io.bfq.weight|io.weight=8:16 500|8:16 4950"},
		{&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{LeafWeight: &leaf}}, "blkio.leaf_weight=10", ""},
		{&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: throttle(8, 0, 5), ThrottleWriteBpsDevice: throttle(8, 0, 0),
			ThrottleReadIOPSDevice: throttle(8, 0, 6), ThrottleWriteIOPSDevice: throttle(8, 0, 7)}},
			"blkio.throttle.read_bps_device=8:0 5; blkio.throttle.write_bps_device=8:0 0; blkio.throttle.read_iops_device=8:0 6; blkio.throttle.write_iops_device=8:0 7",
			"io.max=8:0 rbps=5; io.max=8:0 wbps=max; io.max=8:0 riops=6; io.max=8:0 wiops=7"},
		{&specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 9}}}, "hugetlb.2MB.limit_in_bytes=9", "hugetlb.2MB.max=9"},
		{&specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../x", Limit: 9}}}, "", ""},
		{&specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_1": {}}}, "rdma.max=mlx5_1", "rdma.max=mlx5_1"},
		{&specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 3}}}}, "net_prio.ifpriomap=lo 3", ""},
		{&specs.LinuxResources{Unified: map[string]string{"memory.high": "5", "cpu.max": "max"}}, "", "cpu.max=max; memory.high=5"},
		{&specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}, "", ""},
		{&specs.LinuxResources{Unified: map[string]string{"../memory.max": "1"}}, "", ""},
	} {
		for _, side := range []struct {
			name  string
			where func(string) version
			want  string
		}{{"v1", v1, c.v1}, {"v2", v2, c.v2}} {
			list, err := settings(c.r, side.where)
			got := text(list)
			if got == "" && err == nil {
				got = "-"
			}
			if got != side.want || (err != nil) != (side.want == "") {
				t.Errorf("%+v in %s: %q, %v, want %q", c.r, side.name, got, err, side.want)
			}
			if err != nil && !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unsupported) {
				t.Errorf("%+v: %v", c.r, err)
			}
		}
	}
}

// The points of the curve that runc's tests name, and its ends.
func TestWeights(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 0, 1: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := WeightOfShares(shares); got != want {
			t.Errorf("%d shares are %d, want %d", shares, got, want)
		}
	}
	last := uint64(0)
	for shares := uint64(0); shares < 1<<18; shares += 13 {
		got := WeightOfShares(shares)
		if got < last || got > 10000 {
			t.Fatalf("%d shares are %d after %d", shares, got, last)
		}
		last = got
	}
	for weight, want := range map[uint16]uint64{0: 0, 10: 1, 500: 4950, 1000: 10000} {
		if got := IOWeight(weight); got != want {
			t.Errorf("weight %d is %d, want %d", weight, got, want)
		}
	}
}
