package main

import (
	"errors"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"

	"fief/internal/words/fault"
)

// namedDevices are the devices that vendors describe by files in these
// directories (Container Device Interface, tags.cncf.io). They are read at each
// start that asks for one.
type namedDevices struct{ dirs []string }

// Inject puts what the descriptions of devices say into a container's
// configuration: variables, nodes, mounts, groups and hooks. Errors leave the configuration in an unknown state.
func (n namedDevices) Inject(s *specs.Spec, names []string) error {
	for _, name := range names {
		if !parser.IsQualifiedName(name) {
			return fault.New(fault.Invalid, "use device", name, "it is no name of CDI", "such as vendor.com/class=name")
		}
	}
	cache, err := cdi.NewCache(cdi.WithAutoRefresh(false), cdi.WithSpecDirs(n.dirs...))
	if err != nil {
		return fault.Wrap(fault.Internal, "read descriptions of devices in", strings.Join(n.dirs, ", "), err, "")
	}
	ruled := s.Linux.Resources != nil && len(s.Linux.Resources.Devices) > 0
	missing, err := cache.InjectDevices(s, names...)
	if len(missing) > 0 {
		var why error
		for _, list := range cache.GetErrors() {
			why = errors.Join(append([]error{why}, list...)...)
		}
		f := fault.Say(fault.NotFound, "CDI device injection failed: unresolvable CDI devices "+strings.Join(missing, ", "))
		f.Hint = "descriptions are looked for in " + strings.Join(n.dirs, ", ")
		if why != nil {
			f.Hint += ": " + why.Error()
		}
		return f
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, "use device", strings.Join(names, ", "), err, "")
	}
	if len(s.Linux.NetDevices) > 0 {
		return fault.New(fault.Unsupported, "use device", strings.Join(names, ", "), "its description has network devices, which are not moved", "a description without them")
	}
	if !ruled && s.Linux.Resources != nil {
		s.Linux.Resources.Devices = nil // rules for these alone would deny all others
	}
	return nil
}
