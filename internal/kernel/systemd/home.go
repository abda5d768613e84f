package systemd

import (
	"path"
	"strings"

	"fief/internal/words/fault"
)

// Home is a unit that holds the groups of a daemon's containers in one slice: a
// service whose only process waits, as systemd (257) removes the cgroup of one that
// has none, also of one that RemainAfterExit= keeps active. The daemon divides it
// by itself; systemd is asked once for all containers, not for each.
type Home struct{ Slice, Unit string }

// HomeIn is the home of containers in a slice, "" for where services are.
func HomeIn(slice string) (Home, error) {
	if slice == "" || slice == "system.slice" {
		return Home{"system.slice", "fief-containers.service"}, nil
	}
	if _, err := ExpandSlice(slice); err != nil {
		return Home{}, err
	}
	name := strings.TrimSuffix(slice, ".slice")
	if slice == "-.slice" {
		name = "root"
	}
	h := Home{slice, "fief-containers-of-" + name + ".service"}
	return h, checkUnit(h.Unit)
}

// Dir is the path of the home's cgroup from the root of the hierarchy.
func (h Home) Dir() string {
	dir, err := ExpandSlice(h.Slice)
	if err != nil { // HomeIn has looked
		return ""
	}
	return path.Join(dir, h.Unit)
}

// stopTime is how long containers have to end by themselves when the machine is
// shut down, as `docker stop` gives them.
const stopTime = 10 * 1000000 // microseconds

// StartHome has systemd make a home, unless it is there. wait is a command that
// does nothing and does not end; should it, the home lives until its last
// container has ended. No group can be made in the home before that process is
// in one of its own (cgroups(7), "no internal processes"). A shutdown stops fief.service
// before the homes, so that no daemon sees its containers end and starts them
// again, and then ends the containers: SIGTERM, and SIGKILL ten seconds later.
func (b *Bus) StartHome(h Home, wait []string) error {
	err := b.start(h.Unit, []Property{
		{"Description", Text("containers of fief in " + h.Slice)}, {"Slice", Text(h.Slice)}, {"Delegate", Flag(true)},
		{"Type", Text("exec")}, {"ExitType", Text("cgroup")}, {"ExecStart", Command(wait)}, {"OOMScoreAdjust", Int(-900)},
		{"Before", Texts{"fief.service"}}, {"TimeoutStopUSec", Number(stopTime)}, {"OOMPolicy", Text("continue")},
		{"TasksMax", Number(infinity)}, {"MemoryAccounting", Flag(true)}, {"CPUAccounting", Flag(true)}, {"IOAccounting", Flag(true)},
	})
	if fault.Is(err, fault.Exists) {
		return nil
	}
	return err
}
