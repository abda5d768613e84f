package cgroup

import "github.com/opencontainers/runtime-spec/specs-go"

// Value is what a control file of cgroup v2 is to have.
type Value struct{ File, Text string }

// Values translates resources into the files of cgroup v2, as Limit does where
// every controller is there, for whoever has limits put into force by another.
// Where kernels have either of two files both are named. Faults are Limit's.
func Values(r *specs.LinuxResources) ([]Value, error) {
	list, err := settings(r, func(string) version { return inV2 })
	if err != nil {
		return nil, err
	}
	var out []Value
	for _, s := range list {
		files, texts := split(s.file), split(s.value)
		for i := range files {
			out = append(out, Value{files[i], texts[i]})
		}
	}
	return out, nil
}
