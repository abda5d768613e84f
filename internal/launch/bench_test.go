package launch_test

import (
	"testing"

	"fief/internal/kernel/harden"
	"fief/internal/kernel/seccomp"
	"fief/internal/kernel/seccomp/fingerprint"
	"fief/internal/launch"
	"fief/internal/spec"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// benchRecord is a container as `fief run IMAGE true` has it.
func benchRecord() record.Container {
	return record.Container{
		ID: "0123456789ab", Path: "/bin/true", Hostname: "0123456789ab", Network: "none", Seccomp: "builtin",
		Env:      []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Identity: record.Identity{UID: []idmap.Span{{In: 0, Out: 1878000000, N: 65536}}, GID: []idmap.Span{{In: 0, Out: 1878000000, N: 65536}}},
	}
}

func benchFacts() spec.Facts {
	return spec.Facts{Hostname: "/run/x/hostname", Hosts: "/run/x/hosts", Resolv: "/run/x/resolv.conf", Cgroup2: true, LastCap: 40, Rlimits: limits(),
		User: spec.User{Home: "/root"}, Profiles: &spec.Profiles{}}
}

// BenchmarkDescribe is the time from a record to the encoded plan: the spec,
// the plan made from it, and its encoding, with everything cached that can be.
func BenchmarkDescribe(b *testing.B) {
	c := &launch.Compiler{Filter: seccomp.Compile, Key: fingerprint.Of}
	rec, facts := benchRecord(), benchFacts()
	b.ReportAllocs()
	for b.Loop() {
		s, err := spec.Build(rec, facts)
		if err != nil {
			b.Fatal(err)
		}
		p, err := c.Container(s, launch.Options{ID: rec.ID, Cgroup: true})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Encode(); err != nil {
			b.Fatal(err)
		}
		c.Release(&p)
	}
}

// limits are what a daemon typically was started with.
func limits() []record.Ulimit {
	var out []record.Ulimit
	for n := 0; ; n++ {
		name, ok := harden.RlimitName(n)
		if !ok {
			return out
		}
		out = append(out, record.Ulimit{Name: name, Soft: -1, Hard: -1})
	}
}
