package engine

import (
	"reflect"
	"strings"
	"testing"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

var everything = record.Abilities{
	Memory: true, Swap: true, Reservation: true, Swappiness: true, OomKillDisable: true, CPUShares: true, CPUQuota: true, Realtime: true, Cpuset: true,
	Pids: true, BlkioWeight: true, BlkioWeightDevice: true, BlkioReadBps: true, BlkioWriteBps: true, ReadIOps: true, WriteIOps: true, Devices: true,
	Cpus: "0-1", Mems: "0", CPUs: 2,
}

func ptr(n int64) *int64 { return &n }

func TestCheckResources(t *testing.T) {
	for _, c := range []struct {
		r    record.Resources
		want string // of the error
	}{
		{record.Resources{Memory: 6<<20 - 1}, "Minimum memory limit allowed is 6MB"},
		{record.Resources{Memory: 10 << 20, MemorySwap: 8 << 20}, "Minimum memoryswap limit should be larger than memory limit, see usage"},
		{record.Resources{MemorySwap: 8 << 20}, "You should always set the Memory limit when using Memoryswap limit, see usage"},
		{record.Resources{MemorySwap: -2}, "-2"},
		{record.Resources{MemoryReservation: 1}, "Minimum memory reservation allowed is 6MB"},
		{record.Resources{Memory: 7 << 20, MemoryReservation: 8 << 20}, "Minimum memory limit can not be less than memory reservation limit, see usage"},
		{record.Resources{MemorySwappiness: ptr(101)}, "Invalid value: 101, valid memory swappiness range is 0-100"},
		{record.Resources{OomScoreAdj: -1001}, "Invalid value -1001, range for oom score adj is [-1000, 1000]"},
		{record.Resources{NanoCPUs: 1e9, CPUPeriod: 5000}, "Conflicting options: Nano CPUs and CPU Period cannot both be set"},
		{record.Resources{NanoCPUs: 1e9, CPUQuota: 5000}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"},
		{record.Resources{NanoCPUs: 3e9}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"},
		{record.Resources{NanoCPUs: 1}, "range of CPUs"},
		{record.Resources{CPUPeriod: 999}, "CPU cfs period can not be less than 1ms"},
		{record.Resources{CPUQuota: 999}, "CPU cfs quota can not be less than 1ms"},
		{record.Resources{CPUShares: -1}, "invalid CPU shares (-1)"},
		{record.Resources{RTPeriod: 1, RTRuntime: 2}, "cpu real-time runtime cannot be higher than cpu real-time period"},
		{record.Resources{CpusetCpus: "0-2"}, "Requested CPUs are not available - requested 0-2, available: 0-1"},
		{record.Resources{CpusetCpus: "2-1"}, "Invalid value 2-1 for cpuset cpus"},
		{record.Resources{CpusetCpus: "0-4000000000"}, "Invalid value"},
		{record.Resources{CpusetMems: "1"}, "Requested memory nodes are not available - requested 1, available: 0"},
		{record.Resources{BlkioWeight: 9}, "Range of blkio weight is from 10 to 1000"},
		{record.Resources{Parent: "a/../b"}, `invalid cgroup parent "a/../b"`},
	} {
		if _, err := checkResources(&c.r, everything, false); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.r, err, c.want)
		}
	}
	r := record.Resources{Memory: 8 << 20, CPUShares: 1 << 30, PidsLimit: ptr(5), CpusetCpus: "0,1"}
	warnings, err := checkResources(&r, everything, false)
	if err != nil || r.MemorySwap != 16<<20 || r.CPUShares != maxShares || len(warnings) != 1 {
		t.Errorf("%+v, %q, %v", r, warnings, err)
	}
}

// TestDiscarded: what the machine has no controller for is let go with a warning.
func TestDiscarded(t *testing.T) {
	rate := []record.DeviceRate{{Path: "/dev/a", Rate: 1}}
	r := record.Resources{
		Memory: 8 << 20, MemorySwap: 9 << 20, MemoryReservation: 7 << 20, MemorySwappiness: ptr(5), OomKillDisable: true, CPUShares: 5, CPUPeriod: 5000, CPUQuota: 5000,
		CpusetCpus: "0", CpusetMems: "0", PidsLimit: ptr(5), BlkioWeight: 50, BlkioWeightDevice: []record.DeviceWeight{{Path: "/dev/a", Weight: 50}},
		ReadBps: rate, WriteBps: rate, ReadIOps: rate, WriteIOps: rate,
	}
	warnings, err := checkResources(&r, record.Abilities{CPUs: 2}, false)
	if err != nil || r.Limited() || len(warnings) != 14 {
		t.Errorf("%d warnings, %v: %+v\n%s", len(warnings), err, r, strings.Join(warnings, "\n"))
	}
	for _, w := range warnings {
		if !strings.Contains(w, "iscarded") && !strings.Contains(w, "without swap") {
			t.Error(w)
		}
	}
	for _, r := range []record.Resources{{NanoCPUs: 1e9}, {RTPeriod: 1}} {
		if _, err := checkResources(&r, record.Abilities{CPUs: 2}, false); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestMergeResources(t *testing.T) {
	old := record.Resources{Memory: 8 << 20, MemorySwap: 16 << 20, NanoCPUs: 5e8, PidsLimit: ptr(5), CpusetCpus: "0"}
	got, err := mergeResources(old, record.Resources{Memory: 12 << 20, PidsLimit: ptr(-1)})
	want := record.Resources{Memory: 12 << 20, MemorySwap: 16 << 20, NanoCPUs: 5e8, PidsLimit: ptr(-1), CpusetCpus: "0"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	named := changes(old, got, record.Resources{Memory: 12 << 20, PidsLimit: ptr(-1)})
	if !reflect.DeepEqual(named, record.Resources{Memory: 12 << 20, MemorySwap: 16 << 20, PidsLimit: ptr(-1)}) {
		t.Errorf("changes %+v", named)
	}
	for _, c := range []struct {
		r    record.Resources
		want string
	}{
		{record.Resources{Memory: 32 << 20}, "update the memoryswap at the same time"},
		{record.Resources{CPUQuota: 5000}, "CPU Period/Quota cannot be updated as NanoCPUs has already been set"},
		{record.Resources{MemorySwap: 7 << 20}, "Minimum memoryswap limit should be larger"},
	} {
		if _, err := mergeResources(old, c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.r, err)
		}
	}
	if _, err := mergeResources(record.Resources{CPUQuota: 5000}, record.Resources{NanoCPUs: 1e9}); err == nil {
		t.Error("nano CPUs over a quota")
	}
}
