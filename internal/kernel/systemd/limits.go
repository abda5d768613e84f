package systemd

import (
	"math"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/cgroup"
	"fief/internal/words/fault"
)

// infinity is systemd's word for no limit in a number.
const infinity = math.MaxUint64

// Limits are the properties that keep resources in force: whatever systemd has a
// property for it writes again when it is told to reload, or when a neighbour
// changes, and what it was not told it resets to none. What it has none for
// (io.max, hugetlb, rdma) it leaves alone, and cgroup.Tree.Limit writes it.
// Faults are those of cgroup.Values, and Invalid for a list of processors.
func Limits(r *specs.LinuxResources) ([]Property, error) {
	values, err := cgroup.Values(r)
	if err != nil {
		return nil, err
	}
	var out []Property
	for _, v := range values {
		more, err := property(v)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, "set", v.File+" to "+v.Text, err, "")
		}
		out = append(out, more...)
	}
	return out, nil
}

// property translates one control file (systemd.resource-control(5)).
func property(v cgroup.Value) ([]Property, error) {
	name := map[string]string{
		"memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin",
		"memory.swap.max": "MemorySwapMax", "memory.zswap.max": "MemoryZSwapMax", "pids.max": "TasksMax", "cpu.weight": "CPUWeight",
		"io.weight": "IOWeight", "cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes",
	}[v.File]
	switch v.File {
	case "cpu.max":
		return cpuMax(v.Text)
	case "cpu.idle":
		if v.Text == "1" {
			return []Property{{"CPUWeight", Number(0)}}, nil // since systemd 252
		}
		return nil, nil
	case "cpuset.cpus", "cpuset.mems":
		set, err := bits(v.Text)
		return []Property{{name, set}}, err
	case "io.weight":
		weight, all := strings.CutPrefix(v.Text, "default ")
		if !all {
			return nil, nil // one device's
		}
		v.Text = weight
	case "cpu.weight":
	default:
		if v.Text == "max" {
			v.Text = strconv.FormatUint(infinity, 10)
		}
	}
	if name == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(v.Text, 10, 64)
	return []Property{{name, Number(n)}}, err
}

// cpuMax translates "QUOTA PERIOD" in microseconds. systemd keeps a quota as a
// whole percentage of a processor, so it is rounded up to 10 ms a second; the
// exact one is written after it.
func cpuMax(text string) ([]Property, error) {
	quota, every, _ := strings.Cut(text, " ")
	period := uint64(100000)
	if every != "" {
		var err error
		if period, err = strconv.ParseUint(every, 10, 32); err != nil || period == 0 {
			return nil, strconv.ErrRange
		}
	}
	second := uint64(infinity)
	if quota != "max" {
		n, err := strconv.ParseUint(quota, 10, 44) // a million times it still fits
		if err != nil {
			return nil, err
		}
		second = (n*1000000/period + 9999) / 10000 * 10000
	}
	return []Property{{"CPUQuotaPerSecUSec", Number(second)}, {"CPUQuotaPeriodUSec", Number(period)}}, nil
}

// maxBit is the highest processor or memory node that is taken: more than Linux
// has (CONFIG_NR_CPUS).
const maxBit = 1 << 16

// bits makes the little-endian bit mask that systemd wants of a list such as
// "0-3,7" (cpuset(7), "List Format").
func bits(list string) (Bytes, error) {
	var out Bytes
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		from, to, ranged := strings.Cut(part, "-")
		low, err := strconv.ParseUint(from, 10, 32)
		high := low
		if err == nil && ranged {
			high, err = strconv.ParseUint(to, 10, 32)
		}
		if err != nil || high < low || high >= maxBit {
			return nil, strconv.ErrSyntax
		}
		for n := low; n <= high; n++ {
			for uint64(len(out)) <= n/8 {
				out = append(out, 0)
			}
			out[n/8] |= 1 << (n % 8)
		}
	}
	return out, nil
}
