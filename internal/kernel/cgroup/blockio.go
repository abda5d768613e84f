package cgroup

import (
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// IOWeight converts a blkio weight of v1 (10 to 1000) to io.weight of v2 (1 to
// 10000) by the line through the ends, as runc and crun do. 0 is 0.
func IOWeight(weight uint16) uint64 {
	if weight == 0 {
		return 0
	}
	return 1 + (uint64(weight)-10)*9999/990
}

// blockIO: the weights are those of the BFQ scheduler where it has files in the
// group, which take v1's numbers in both versions; else those of the scheduler
// that v1 had until 5.0, or of io.cost in v2. Which there are is for the writer
// to find, so each has its alternative.
func (l *lister) blockIO(r *specs.LinuxResources) error {
	b := r.BlockIO
	if b == nil {
		return nil
	}
	v1 := l.where("io") == inV1
	if b.Weight != nil && *b.Weight != 0 {
		text := strconv.Itoa(int(*b.Weight))
		if v1 {
			l.set("blkio.weight|blkio.bfq.weight", text+"|"+text)
		} else {
			l.set("io.bfq.weight|io.weight", text+"|default "+strconv.FormatUint(IOWeight(*b.Weight), 10))
		}
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		if !v1 {
			return cannot("leaf weight", "cgroup v2 has none")
		}
		l.set("blkio.leaf_weight", strconv.Itoa(int(*b.LeafWeight)))
	}
	for _, d := range b.WeightDevice {
		if d.Weight == nil || *d.Weight == 0 {
			continue
		}
		device := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
		text := device + strconv.Itoa(int(*d.Weight))
		if v1 {
			l.set("blkio.weight_device|blkio.bfq.weight_device", text+"|"+text)
		} else {
			l.set("io.bfq.weight|io.weight", text+"|"+device+strconv.FormatUint(IOWeight(*d.Weight), 10))
		}
	}
	for _, t := range []struct {
		list   []specs.LinuxThrottleDevice
		v1, v2 string
	}{
		{b.ThrottleReadBpsDevice, "read_bps", "rbps"}, {b.ThrottleWriteBpsDevice, "write_bps", "wbps"},
		{b.ThrottleReadIOPSDevice, "read_iops", "riops"}, {b.ThrottleWriteIOPSDevice, "write_iops", "wiops"},
	} {
		for _, d := range t.list {
			l.throttle(t.v1, t.v2, d, v1)
		}
	}
	return nil
}

// throttle limits a rate; zero is no limit, in v2 by the word for it.
func (l *lister) throttle(nameV1, nameV2 string, d specs.LinuxThrottleDevice, v1 bool) {
	device := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
	rate := strconv.FormatUint(d.Rate, 10)
	if v1 {
		l.set("blkio.throttle."+nameV1+"_device", device+rate)
		return
	}
	if d.Rate == 0 {
		rate = "max"
	}
	l.set("io.max", device+nameV2+"="+rate)
}
