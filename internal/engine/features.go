package engine

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// checkFeatures refuses by name what a container asks for and its runtime says
// that it does not have (runtime-spec features.md). What a runtime does not say
// it is asked for: it refuses by itself what it knows and cannot do. Words of
// later versions of the specification would be passed over in silence, so those
// it must have said.
func checkFeatures(rec record.Container, config *specs.Spec, f *features.Features) error {
	lacks := func(what string) error {
		return fault.New(fault.Unsupported, "use runtime "+rec.Runtime+" for container", rec.Name, "it has no "+what, "leave that out, or use --runtime fief")
	}
	if config.Domainname != "" && !atLeast(f, 1, 1) {
		return lacks("domain name")
	}
	if f == nil || f.Linux == nil {
		return nil
	}
	l := f.Linux
	for _, n := range config.Linux.Namespaces {
		if missing(l.Namespaces, string(n.Type)) {
			return lacks(string(n.Type) + " namespaces")
		}
	}
	if p := config.Process; p != nil && p.Capabilities != nil {
		for _, c := range p.Capabilities.Bounding {
			if missing(l.Capabilities, c) {
				return lacks("capability " + c)
			}
		}
	}
	for _, m := range config.Mounts {
		for _, o := range m.Options {
			if (o == "rslave" || o == "slave" || o == "shared" || o == "rshared") && missing(f.MountOptions, o) {
				return lacks("mount option " + o)
			}
		}
	}
	if h := config.Hooks; h != nil {
		for name, list := range map[string][]specs.Hook{"createRuntime": h.CreateRuntime, "createContainer": h.CreateContainer,
			"startContainer": h.StartContainer, "poststart": h.Poststart, "poststop": h.Poststop} {
			if len(list) > 0 && missing(f.Hooks, name) {
				return lacks(name + " hooks")
			}
		}
	}
	if s := config.Linux.Seccomp; s != nil {
		if what := missingSeccomp(s, l.Seccomp); what != "" {
			return lacks(what)
		}
	}
	return nil
}

// missing reports whether a list that is known lacks a word.
func missing(have []string, want string) bool { return have != nil && !slices.Contains(have, want) }

// missingSeccomp names what of a filter a runtime does not have.
func missingSeccomp(s *specs.LinuxSeccomp, have *features.Seccomp) string {
	if have == nil {
		return ""
	}
	if have.Enabled != nil && !*have.Enabled {
		return "system call filters"
	}
	for _, rule := range s.Syscalls {
		if missing(have.Actions, string(rule.Action)) {
			return "filter action " + string(rule.Action)
		}
		for _, a := range rule.Args {
			if missing(have.Operators, string(a.Op)) {
				return "filter operator " + string(a.Op)
			}
		}
	}
	if missing(have.Actions, string(s.DefaultAction)) {
		return "filter action " + string(s.DefaultAction)
	}
	return ""
}

// atLeast reports whether a runtime says that it knows a version of the
// specification.
func atLeast(f *features.Features, major, minor int) bool {
	if f == nil {
		return false
	}
	parts := strings.SplitN(f.OCIVersionMax, ".", 3)
	if len(parts) < 2 {
		return false
	}
	have, err := strconv.Atoi(parts[0])
	next, err2 := strconv.Atoi(parts[1])
	return err == nil && err2 == nil && (have > major || have == major && next >= minor)
}
