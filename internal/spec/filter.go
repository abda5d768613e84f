package spec

import (
	"encoding/json"
	"strings"
	"sync"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// maxProfile bounds a custom profile; Docker's own has 20 KiB.
const maxProfile = 1 << 20

// filter is the system call filter of the container, for the capabilities and
// the machine it will run with; nil without one.
func filter(c record.Container, s *specs.Spec, kept *Profiles) (*specs.LinuxSeccomp, error) {
	if c.Privileged && c.Seccomp != "custom" {
		return nil, nil // as in Docker
	}
	switch c.Seccomp {
	case "builtin", "":
		p, err := kept.builtin(s)
		return p, fault.Wrap(fault.Internal, "make seccomp profile", "builtin", err, "")
	case "unconfined":
		return nil, nil
	case "custom":
		return custom(c.Profile, s)
	}
	return nil, fault.New(fault.Invalid, "use seccomp profile", c.Seccomp, "it is none of builtin, unconfined, custom", "")
}

// Profiles keeps Docker's profile as it is for each set of capabilities, on
// which alone it depends: making it takes longer than all the rest of a
// configuration. Configurations share it: it must not be changed in one. The
// zero value is ready for use, by several goroutines.
type Profiles struct {
	mu   sync.Mutex
	made map[string]*specs.LinuxSeccomp // by the bounding set; guarded by mu
}

// maxProfiles bounds the memory for profiles, some 16 KiB each: the sets of
// capabilities come from clients.
const maxProfiles = 64

func (p *Profiles) builtin(s *specs.Spec) (*specs.LinuxSeccomp, error) {
	if p == nil {
		return seccomp.GetDefaultProfile(s)
	}
	key := strings.Join(s.Process.Capabilities.Bounding, " ")
	p.mu.Lock()
	defer p.mu.Unlock()
	if made := p.made[key]; made != nil {
		return made, nil
	}
	made, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, err
	}
	if p.made == nil || len(p.made) >= maxProfiles {
		p.made = map[string]*specs.LinuxSeccomp{}
	}
	p.made[key] = made
	return made, nil
}

// custom reads a profile in Docker's format, of which the OCI format is a part.
func custom(text []byte, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	if len(text) > maxProfile {
		return nil, badProfile("it is larger than 1 MiB")
	}
	// The parser behind LoadProfile dereferences every rule.
	var rules struct {
		Syscalls []*struct{} `json:"syscalls"`
	}
	if err := json.Unmarshal(text, &rules); err != nil {
		return nil, fault.Wrap(fault.Invalid, "use seccomp profile", "", err, "")
	}
	for _, rule := range rules.Syscalls {
		if rule == nil {
			return nil, badProfile("a rule is null")
		}
	}
	p, err := seccomp.LoadProfile(string(text), s)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "use seccomp profile", "", err, "")
	}
	if p == nil {
		// Docker takes this for "no filter".
		return nil, badProfile("it has no default action and no rules")
	}
	return p, nil
}

func badProfile(why string) error {
	return fault.New(fault.Invalid, "use seccomp profile", "", why, "to run without a filter, say seccomp=unconfined")
}
