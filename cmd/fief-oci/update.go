package main

import (
	"encoding/json"
	"flag"
	"io"
	"os"
	"strconv"

	"github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
)

// updateCommand changes limits live; those that are not named stay. They are
// named in a file, or by runc's options for single ones.
func updateCommand(a *app, set *flag.FlagSet) func([]string) error {
	file := set.String("resources", "", "file of OCI linux.resources, - for standard input; other options are ignored")
	set.StringVar(file, "r", "", "short for --resources")
	var flags specs.LinuxResources
	given := limitFlags(set, &flags)
	return func(args []string) error {
		id, err := one(args)
		if err != nil {
			return err
		}
		r := &flags
		switch {
		case *file != "":
			r, err = readResources(*file)
		case !*given:
			return fault.New(fault.Invalid, "update container", id, "no resources are named", "--resources FILE, or an option for a single one")
		}
		if err != nil {
			return err
		}
		c, tree, err := a.grouped("update", id)
		if err != nil {
			return err
		}
		defer tree.Close()
		return c.limit(tree, r)
	}
}

func readResources(file string) (*specs.LinuxResources, error) {
	var in io.Reader = os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fault.Wrap(fault.NotFound, "open", file, err, "")
		}
		defer f.Close()
		in = f
	}
	r := &specs.LinuxResources{}
	err := json.NewDecoder(io.LimitReader(in, maxConfig)).Decode(r)
	return r, fault.Wrap(fault.Invalid, "read resources of", file, err, "")
}

// limitFlags declares runc's options for single limits; given tells afterwards
// whether there was one. Memory takes units, as there (RAMInBytes).
func limitFlags(set *flag.FlagSet, r *specs.LinuxResources) (given *bool) {
	given = new(bool)
	option := func(name, help string, use func(string) error) {
		set.Func(name, help, func(s string) error {
			*given = true
			return use(s)
		})
	}
	for _, l := range limits() {
		option(l.name, l.help, func(s string) error { return l.set(r, s) })
	}
	for _, name := range []string{"l3-cache-schema", "mem-bw-schema"} {
		option(name, "refused: resctrl is not touched", func(string) error {
			return fault.New(fault.Unsupported, "limit by", name, "not supported by this runtime", "leave it out")
		})
	}
	for _, name := range []string{"kernel-memory", "kernel-memory-tcp"} {
		set.String(name, "", "ignored, as the kernel and runc have")
	}
	return given
}

// limit is an option that sets one limit from its text.
type limit struct {
	name, help string
	set        func(r *specs.LinuxResources, value string) error
}

func limits() []limit {
	cpu := func(r *specs.LinuxResources) *specs.LinuxCPU { return made(&r.CPU) }
	memory := func(r *specs.LinuxResources) *specs.LinuxMemory { return made(&r.Memory) }
	return []limit{
		{"blkio-weight", "weight of block I/O, 10 to 1000", func(r *specs.LinuxResources, s string) error {
			n, err := strconv.ParseUint(s, 10, 16)
			weight := uint16(n)
			made(&r.BlockIO).Weight = &weight
			return err
		}},
		{"cpu-period", "period of --cpu-quota in µs", func(r *specs.LinuxResources, s string) error { return number(s, &cpu(r).Period) }},
		{"cpu-quota", "processor time in each period in µs", func(r *specs.LinuxResources, s string) error { return signed(s, &cpu(r).Quota) }},
		{"cpu-burst", "unused processor time that is kept, in µs", func(r *specs.LinuxResources, s string) error { return number(s, &cpu(r).Burst) }},
		{"cpu-share", "weight of processor time, 2 to 262144", func(r *specs.LinuxResources, s string) error { return number(s, &cpu(r).Shares) }},
		{"cpu-rt-period", "period of --cpu-rt-runtime in µs", func(r *specs.LinuxResources, s string) error { return number(s, &cpu(r).RealtimePeriod) }},
		{"cpu-rt-runtime", "realtime in each period in µs", func(r *specs.LinuxResources, s string) error { return signed(s, &cpu(r).RealtimeRuntime) }},
		{"cpu-idle", "1: only when nothing else wants the processor", func(r *specs.LinuxResources, s string) error { return signed(s, &cpu(r).Idle) }},
		{"cpuset-cpus", "processors", func(r *specs.LinuxResources, s string) error { cpu(r).Cpus = s; return nil }},
		{"cpuset-mems", "memory nodes", func(r *specs.LinuxResources, s string) error { cpu(r).Mems = s; return nil }},
		{"memory", "bytes, -1 for no limit", func(r *specs.LinuxResources, s string) error { return size(s, &memory(r).Limit) }},
		{"memory-reservation", "bytes that are left to it longest", func(r *specs.LinuxResources, s string) error { return size(s, &memory(r).Reservation) }},
		{"memory-swap", "bytes of memory and swap, -1 for no limit", func(r *specs.LinuxResources, s string) error { return size(s, &memory(r).Swap) }},
		{"pids-limit", "processes, -1 for no limit", func(r *specs.LinuxResources, s string) error { return signed(s, &made(&r.Pids).Limit) }},
	}
}

// made is what p points to, made when there is none yet.
func made[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

func number(s string, to **uint64) error {
	n, err := strconv.ParseUint(s, 10, 64)
	*to = &n
	return err
}

func signed(s string, to **int64) error {
	n, err := strconv.ParseInt(s, 10, 64)
	*to = &n
	return err
}

func size(s string, to **int64) error {
	n := int64(-1)
	var err error
	if s != "-1" {
		n, err = units.RAMInBytes(s)
	}
	*to = &n
	return err
}
