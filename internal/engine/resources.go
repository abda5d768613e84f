package engine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/launch"
	"fief/internal/spec"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// leastMemory is the least limit that Docker takes: less would not start a
// program.
const leastMemory = 6 << 20

// groupOf names a container's group: below fief's own, or where it asked.
func groupOf(rec record.Container) string {
	if rec.Resources.Parent == "" {
		return rec.ID
	}
	return path.Join("/", rec.Resources.Parent, rec.ID)
}

// makeGroup makes the container's group with its limits and gives it to the plan;
// groups is how many of v1 there are to enter besides.
func (e *Engine) makeGroup(b *bundle, rec record.Container, r *specs.LinuxResources) (made bool, groups int, err error) {
	files, err := e.rooms.Cgroups.Create(groupOf(rec), r)
	if err != nil || len(files) == 0 {
		return false, 0, err
	}
	return true, b.enterGroups(files), nil
}

// enterGroups gives a plan the group of v2 and those of v1.
func (b *bundle) enterGroups(files []*os.File) (groups int) {
	b.files["cgroup"] = files[0]
	for i, f := range files[1:] {
		b.files[launch.GroupName(i)] = f
	}
	return len(files) - 1
}

// dropGroup removes a container's group, which has no process any more.
func (e *Engine) dropGroup(rec record.Container) {
	if err := e.rooms.Cgroups.Remove(groupOf(rec)); err != nil {
		slog.Warn("cannot remove a container's cgroup", "container", rec.ID, "error", err)
	}
}

// clearGroup removes the group of a container that a killed daemon was starting,
// if it had come so far, with what runs in it: a process of a start that is not on
// record has lost its monitor too.
func (e *Engine) clearGroup(rec record.Container) {
	err := e.rooms.Cgroups.Kill(groupOf(rec))
	if fault.Is(err, fault.NotFound) {
		return
	}
	e.dropGroup(rec)
}

// killedForMemory reports whether the kernel has killed a process of the
// container for lack of memory.
func (e *Engine) killedForMemory(rec record.Container) bool {
	n, err := e.rooms.Cgroups.OOMKills(groupOf(rec))
	if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Unsupported) {
		slog.Warn("cannot read whether a container was out of memory", "container", rec.ID, "error", err)
	}
	return n > 0
}

// checkResources refuses limits that contradict each other or that no machine
// could have, and lets go of those that this one has no controller for, with a
// warning: as Docker does, and in its words. Update says that r changes what was
// checked before.
func checkResources(r *record.Resources, can record.Abilities, update bool) (warnings []string, err error) {
	for _, check := range []func(*record.Resources, record.Abilities, bool) ([]string, error){checkMemory, checkKiller, checkPids, checkCPU, checkCPUShares, checkRealtime, checkCpuset, checkBlkio, checkParent} {
		more, err := check(r, can, update)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, more...)
	}
	return warnings, nil
}

func wrong(format string, args ...any) ([]string, error) {
	return nil, fault.Say(fault.Invalid, fmt.Sprintf(format, args...))
}

func checkMemory(r *record.Resources, can record.Abilities, update bool) (out []string, err error) {
	if r.Memory != 0 && r.Memory < leastMemory && !(update && r.Memory == -1) {
		return wrong("Minimum memory limit allowed is 6MB")
	}
	if r.Memory > 0 && !can.Memory {
		out = append(out, "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.")
		r.Memory, r.MemorySwap = 0, 0
	}
	if r.Memory > 0 && r.MemorySwap != -1 && !can.Swap {
		out = append(out, "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
		r.MemorySwap = 0
	}
	switch {
	case r.MemorySwap < -1:
		return wrong("invalid value %d for memory and swap: -1 is no limit", r.MemorySwap)
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return wrong("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0 && !update:
		return wrong("You should always set the Memory limit when using Memoryswap limit, see usage")
	}
	if s := r.MemorySwappiness; s != nil && *s != -1 {
		if *s < 0 || *s > 100 {
			return wrong("Invalid value: %v, valid memory swappiness range is 0-100", *s)
		}
		if !can.Swappiness {
			out = append(out, "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
			r.MemorySwappiness = nil
		}
	}
	switch {
	case r.MemoryReservation > 0 && !can.Reservation:
		out = append(out, "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.")
		r.MemoryReservation = 0
	case r.MemoryReservation != 0 && r.MemoryReservation < leastMemory:
		return wrong("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > 0 && r.Memory < r.MemoryReservation:
		return wrong("Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	if r.Memory > 0 && r.MemorySwap == 0 && can.Swap && !update {
		r.MemorySwap = 2 * r.Memory
	}
	return out, nil
}

func checkKiller(r *record.Resources, can record.Abilities, _ bool) (out []string, err error) {
	if r.OomScoreAdj < -1000 || r.OomScoreAdj > 1000 {
		return wrong("Invalid value %d, range for oom score adj is [-1000, 1000]", r.OomScoreAdj)
	}
	if r.OomKillDisable && !can.OomKillDisable {
		out = append(out, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
		r.OomKillDisable = false
	}
	if r.OomKillDisable && r.Memory == 0 {
		out = append(out, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	return out, nil
}

func checkPids(r *record.Resources, can record.Abilities, _ bool) ([]string, error) {
	if r.PidsLimit != nil && *r.PidsLimit > 0 && !can.Pids {
		r.PidsLimit = nil
		return []string{"Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."}, nil
	}
	return nil, nil
}

func checkCPU(r *record.Resources, can record.Abilities, _ bool) (out []string, err error) {
	switch {
	case r.NanoCPUs != 0 && r.CPUPeriod > 0:
		return wrong("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs != 0 && r.CPUQuota > 0:
		return wrong("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.NanoCPUs != 0 && !can.CPUQuota:
		return wrong("NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted")
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(can.CPUs)*1e9 || r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
		return wrong("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", can.CPUs, can.CPUs)
	}
	if (r.CPUPeriod != 0 || r.CPUQuota != 0) && !can.CPUQuota {
		out = append(out, "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
		r.CPUPeriod, r.CPUQuota = 0, 0
	}
	if r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000) {
		return wrong("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	}
	if r.CPUQuota > 0 && r.CPUQuota < 1000 {
		return wrong("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	return out, nil
}

// The ends of what cpu.shares takes (kernel/sched/sched.h, MIN_SHARES, MAX_SHARES).
const minShares, maxShares = 2, 262144

func checkCPUShares(r *record.Resources, can record.Abilities, _ bool) (out []string, err error) {
	switch {
	case r.CPUShares < 0:
		return wrong("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.CPUShares == 0:
	case !can.CPUShares:
		out = append(out, "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.")
		r.CPUShares = 0
	case r.CPUShares < minShares:
		out = append(out, fmt.Sprintf("Changing requested CPUShares of %d to minimum allowed of %d", r.CPUShares, minShares))
		r.CPUShares = minShares
	case r.CPUShares > maxShares:
		out = append(out, fmt.Sprintf("Changing requested CPUShares of %d to maximum allowed of %d", r.CPUShares, maxShares))
		r.CPUShares = maxShares
	}
	return out, nil
}

func checkRealtime(r *record.Resources, can record.Abilities, _ bool) ([]string, error) {
	switch {
	case (r.RTPeriod != 0 || r.RTRuntime != 0) && !can.Realtime:
		return wrong("Your kernel does not support CPU real-time scheduler")
	case r.RTPeriod != 0 && r.RTRuntime != 0 && r.RTRuntime > r.RTPeriod:
		return wrong("cpu real-time runtime cannot be higher than cpu real-time period")
	}
	return nil, nil
}

func checkCpuset(r *record.Resources, can record.Abilities, _ bool) ([]string, error) {
	if (r.CpusetCpus != "" || r.CpusetMems != "") && !can.Cpuset {
		r.CpusetCpus, r.CpusetMems = "", ""
		return []string{"Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded."}, nil
	}
	for _, s := range []struct{ asked, have, kind, what string }{{r.CpusetCpus, can.Cpus, "cpuset cpus", "CPUs"}, {r.CpusetMems, can.Mems, "cpuset mems", "memory nodes"}} {
		asked, ok := numbers(s.asked)
		if !ok {
			return wrong("Invalid value %s for %s", s.asked, s.kind)
		}
		have, _ := numbers(s.have)
		for n := range asked {
			if !have[n] {
				return wrong("Requested %s are not available - requested %s, available: %s", s.what, s.asked, s.have)
			}
		}
	}
	return nil, nil
}

// maxNumber bounds a list such as that of processors; the kernel's is 8192.
const maxNumber = 8192

// numbers reads a list such as "0-3,7" (cpuset(7), "List format").
func numbers(list string) (map[int]bool, bool) {
	out := map[int]bool{}
	if list == "" {
		return out, true
	}
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || a < 0 || b < a || b >= maxNumber {
			return nil, false
		}
		for n := a; n <= b; n++ {
			out[n] = true
		}
	}
	return out, true
}

func checkBlkio(r *record.Resources, can record.Abilities, _ bool) (out []string, err error) {
	badWeight := func(w uint16) bool { return w != 0 && (w < 10 || w > 1000) }
	if r.BlkioWeight != 0 && !can.BlkioWeight {
		out = append(out, "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
		r.BlkioWeight = 0
	}
	if badWeight(r.BlkioWeight) || slices.ContainsFunc(r.BlkioWeightDevice, func(d record.DeviceWeight) bool { return badWeight(d.Weight) }) {
		return wrong("Range of blkio weight is from 10 to 1000")
	}
	if len(r.BlkioWeightDevice) > 0 && !can.BlkioWeightDevice {
		out = append(out, "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.")
		r.BlkioWeightDevice = nil
	}
	for _, t := range []struct {
		list      *[]record.DeviceRate
		can       bool
		has, lost string
	}{
		{&r.ReadBps, can.BlkioReadBps, "BPS Block I/O read limit", "Block I/O BPS read limit"},
		{&r.WriteBps, can.BlkioWriteBps, "BPS Block I/O write limit", "Block I/O BPS write limit"},
		{&r.ReadIOps, can.ReadIOps, "IOPS Block read limit", "Block I/O IOPS read limit"},
		{&r.WriteIOps, can.WriteIOps, "IOPS Block write limit", "Block I/O IOPS write limit"},
	} {
		if len(*t.list) > 0 && !t.can {
			out = append(out, "Your kernel does not support "+t.has+" or the cgroup is not mounted. "+t.lost+" discarded.")
			*t.list = nil
		}
	}
	return out, nil
}

// checkParent: the cgroup's path is taken from the root of each hierarchy.
func checkParent(r *record.Resources, _ record.Abilities, _ bool) ([]string, error) {
	if r.Parent != "" && slices.Contains(strings.Split(r.Parent, "/"), "..") {
		return wrong("invalid cgroup parent %q: it has a \"..\"", r.Parent)
	}
	return nil, nil
}

// checkLimits is checkResources and what else of a new container belongs to the
// machine: its devices, and what is set in its namespaces.
func (e *Engine) checkLimits(rec *record.Container) ([]string, error) {
	warnings, err := checkResources(&rec.Resources, e.cfg.Host.Can, false)
	if err != nil {
		return nil, err
	}
	for name := range rec.Sysctls {
		if err := spec.CheckSysctl(name, *rec); err != nil {
			return nil, err
		}
	}
	if _, err := spec.Resources(rec.Resources); err != nil { // block devices are there
		return nil, err
	}
	return warnings, nil
}

// enterRunning gives an exec's plan the groups of its container.
func (e *Engine) enterRunning(b *bundle, rec record.Container) (made bool, groups int, err error) {
	files, err := e.rooms.Cgroups.Enter(groupOf(rec))
	if err != nil || len(files) == 0 {
		return false, 0, err
	}
	return true, b.enterGroups(files), nil
}

// UpdateResources changes limits of a container, live when it runs: what r does
// not name stays. When one cannot be set the container keeps the limits that it
// had on record, though others of them may be in force by then. It returns
// Docker's warnings.
func (e *Engine) UpdateResources(ctx context.Context, name string, r record.Resources) ([]string, error) {
	c, err := e.claim(ctx, name)
	if err != nil {
		return nil, err
	}
	defer c.free()
	rec := c.record()
	if rec.State.Status == record.Removing || rec.State.Status == record.Dead {
		return nil, fault.Say(fault.Conflict, "Cannot update container "+rec.ID+": container is marked for removal and cannot be \"update\"")
	}
	warnings, err := checkResources(&r, e.cfg.Host.Can, true)
	if err != nil {
		return nil, err
	}
	merged, err := mergeResources(rec.Resources, r)
	if err != nil {
		return nil, err
	}
	changed, err := spec.Resources(changes(rec.Resources, merged, r))
	if err != nil {
		return nil, err
	}
	if rec.State.Status == record.Running && changed != nil {
		if err := e.rooms.Cgroups.Limit(groupOf(rec), changed); err != nil {
			return nil, err
		}
	}
	failpoint.Hit("limits-set")
	old := rec.Resources
	c.change(func(to *record.Container) { to.Resources = merged })
	if err := e.keep(c); err != nil {
		c.change(func(to *record.Container) { to.Resources = old })
		return nil, err
	}
	e.tell("update", c.record(), nil)
	return warnings, nil
}

// mergeResources lays what an update names over what there is, as Docker does.
func mergeResources(old, r record.Resources) (record.Resources, error) {
	out := old
	switch {
	case r.NanoCPUs > 0 && (old.CPUPeriod > 0 || old.CPUQuota > 0):
		return out, fault.Say(fault.Conflict, "Conflicting options: Nano CPUs cannot be updated as CPU Period/Quota has already been set")
	case (r.CPUPeriod != 0 || r.CPUQuota != 0) && old.NanoCPUs > 0:
		return out, fault.Say(fault.Conflict, "Conflicting options: CPU Period/Quota cannot be updated as NanoCPUs has already been set")
	}
	for _, n := range []struct {
		to  *int64
		new int64
	}{
		{&out.NanoCPUs, r.NanoCPUs}, {&out.CPUShares, r.CPUShares}, {&out.CPUPeriod, r.CPUPeriod}, {&out.CPUQuota, r.CPUQuota},
		{&out.RTPeriod, r.RTPeriod}, {&out.RTRuntime, r.RTRuntime}, {&out.Memory, r.Memory}, {&out.MemorySwap, r.MemorySwap}, {&out.MemoryReservation, r.MemoryReservation},
	} {
		if n.new != 0 {
			*n.to = n.new
		}
	}
	if out.Memory > 0 && r.MemorySwap == 0 && old.MemorySwap > 0 && out.Memory > old.MemorySwap {
		return out, fault.Say(fault.Conflict, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	if out.Memory > 0 && out.MemorySwap > 0 && out.MemorySwap < out.Memory {
		return out, fault.Say(fault.Invalid, "Minimum memoryswap limit should be larger than memory limit, see usage")
	}
	out.CpusetCpus, out.CpusetMems = first(r.CpusetCpus, old.CpusetCpus), first(r.CpusetMems, old.CpusetMems)
	if r.BlkioWeight != 0 {
		out.BlkioWeight = r.BlkioWeight
	}
	if r.PidsLimit != nil {
		out.PidsLimit = r.PidsLimit
	}
	return out, nil
}

// changes are the merged limits of those kinds that an update names: those of
// one kind depend on each other in the kernel.
func changes(old, merged, r record.Resources) record.Resources {
	out := merged
	out.BlkioWeightDevice, out.ReadBps, out.WriteBps, out.ReadIOps, out.WriteIOps = nil, nil, nil, nil, nil
	out.MemorySwappiness, out.OomKillDisable = nil, false
	if r.Memory == 0 && r.MemorySwap == 0 {
		out.Memory, out.MemorySwap = 0, 0
	}
	if r.MemoryReservation == 0 {
		out.MemoryReservation = 0
	}
	if r.CPUShares == 0 {
		out.CPUShares = 0
	}
	if r.NanoCPUs == 0 && r.CPUPeriod == 0 && r.CPUQuota == 0 {
		out.NanoCPUs, out.CPUPeriod, out.CPUQuota = 0, 0, 0
	}
	if r.RTPeriod == 0 && r.RTRuntime == 0 {
		out.RTPeriod, out.RTRuntime = 0, 0
	}
	out.CpusetCpus, out.CpusetMems, out.PidsLimit = r.CpusetCpus, r.CpusetMems, r.PidsLimit
	if out.BlkioWeight == old.BlkioWeight {
		out.BlkioWeight = 0
	}
	return out
}
