package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/harden"
)

// withhold leaves out capabilities that this process has not and cannot give, and
// says so: a config that asks for them does not fail (OCI runtime spec, process,
// capabilities). Names that no kernel has are left for the compiler to refuse. In
// a user namespace of its own a container's root has all (user_namespaces(7)).
func withhold(s *specs.Spec, p *specs.Process) error {
	if ownUserns(s) || p == nil || p.Capabilities == nil {
		return nil
	}
	last, err := harden.LastCap()
	if err != nil {
		return err
	}
	own, err := harden.Bounding(last)
	if err != nil {
		return err
	}
	var missing []string
	cannot := func(name string) bool {
		_, known := harden.Capability(name)
		if !known || slices.Contains(own, name) {
			return false
		}
		missing = append(missing, name)
		return true
	}
	c := *p.Capabilities // exec's may be the container's
	for _, list := range []*[]string{&c.Bounding, &c.Effective, &c.Inheritable, &c.Permitted, &c.Ambient} {
		*list = slices.DeleteFunc(slices.Clone(*list), cannot)
	}
	p.Capabilities = &c
	if len(missing) > 0 {
		slices.Sort(missing)
		fmt.Fprintf(os.Stderr, "warning: the process goes without %s, which this one has not to give\n", strings.Join(slices.Compact(missing), " "))
	}
	return nil
}
