package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/seccomp"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

var update = flag.Bool("update", false, "write the golden files anew")

const lastCap = unix.CAP_CHECKPOINT_RESTORE

// plain is a container that asks for nothing.
func plain() (record.Container, Facts) {
	spans := []idmap.Span{{In: 0, Out: 524288, N: 65536}}
	return record.Container{
			ID: strings.Repeat("ab", 32), Name: "plain", Path: "/bin/sh", Args: []string{"-c", "id"},
			Env: []string{"LANG=C"}, Hostname: "abababababab", Network: "none", Seccomp: "builtin",
			Identity: record.Identity{Mode: "auto", UID: spans, GID: spans},
		}, Facts{
			User:     User{Home: "/root"},
			Hostname: "/run/fief/ab/hostname", Hosts: "/run/fief/ab/hosts", Resolv: "/run/fief/ab/resolv.conf",
			Init: "/usr/lib/fief/fief-mon", CgroupsPath: "/fief/ab", Cgroup2: true,
			Rlimits: []record.Ulimit{{Name: "nofile", Soft: 1024, Hard: 524288}, {Name: "core", Soft: 0, Hard: -1}},
			LastCap: lastCap,
		}
}

// variants are the golden files: each changes the plain container.
func variants() map[string]func(*record.Container, *Facts) {
	return map[string]func(*record.Container, *Facts){
		"default": func(*record.Container, *Facts) {},
		"tty": func(c *record.Container, f *Facts) {
			c.TTY, c.WorkDir, c.Domainname = true, "/srv/", "example.org"
			c.Env = []string{"PATH=/bin", "HOME=/srv", "HOSTNAME"}
		},
		"read-only": func(c *record.Container, f *Facts) { c.ReadOnly, c.ShmSize = true, 1<<20 },
		"host": func(c *record.Container, f *Facts) {
			c.Network, c.Identity = "host", record.Identity{Mode: "host"}
			c.Annotations = map[string]string{"b": "2", "a": "1"}
		},
		"userns-host": func(c *record.Container, f *Facts) { c.Identity = record.Identity{Mode: "host"} },
		"caps": func(c *record.Container, f *Facts) {
			c.CapAdd, c.CapDrop = []string{"SYS_PTRACE", "net_admin"}, []string{"CHOWN", "CAP_NET_RAW"}
		},
		"user": func(c *record.Container, f *Facts) {
			f.User = User{UID: 1000, GID: 100, Groups: []uint32{27, 100, 44}}
		},
		"ulimits": func(c *record.Container, f *Facts) {
			c.Ulimits = []record.Ulimit{{Name: "nproc", Soft: 10, Hard: 20}, {Name: "nofile", Soft: -1, Hard: -1}}
		},
		"mounts": func(c *record.Container, f *Facts) {
			c.Mounts = []record.Mount{
				{Kind: "bind", Source: "/src/deep", Target: "/data/in/deep", Recursive: true, ReadOnly: true},
				{Kind: "bind", Source: "/src", Target: "/data/", Propagation: "rslave"},
				{Kind: "volume", Name: "v", Source: "/var/lib/fief/volumes/v/_data", Target: "/vol"},
				{Kind: "bind", Source: "/my/hosts", Target: "/etc/hosts", Recursive: true},
				{Kind: "bind", Source: "/my/shm", Target: "/dev/shm", Recursive: true, Propagation: "rshared"},
			}
		},
		"tmpfs": func(c *record.Container, f *Facts) {
			c.Mounts = []record.Mount{{Kind: "tmpfs", Target: "/tmp"}, {Kind: "tmpfs", Target: "/run", TmpfsSize: 4096, TmpfsMode: 0o755, TmpfsExec: true, ReadOnly: true}}
		},
		"custom-seccomp": func(c *record.Container, f *Facts) {
			c.Seccomp = "custom"
			c.Profile = []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
				{"names":["mount"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}},
				{"name":"chown","action":"SCMP_ACT_ERRNO","errnoRet":13,"excludes":{"caps":["CAP_CHOWN"]}}]}`)
		},
		"unconfined": func(c *record.Container, f *Facts) { c.Seccomp = "unconfined" },
		"init":       func(c *record.Container, f *Facts) { c.Init = true },
		"extents": func(c *record.Container, f *Facts) {
			c.Identity = record.Identity{Mode: "map", UID: []idmap.Span{{In: 0, Out: 1000, N: 1}, {In: 1, Out: 100000, N: 5000}},
				GID: []idmap.Span{{In: 100, Out: 300000, N: 10}, {In: 0, Out: 1000, N: 1}}}
		},
		"no-new-privileges": func(c *record.Container, f *Facts) { c.NoNewPrivs = true },
		"bare": func(c *record.Container, f *Facts) {
			*f = Facts{LastCap: lastCap, Masked: []string{"/sys/devices/system/cpu/cpu0/thermal_throttle"}}
			c.Env, c.Args = nil, nil
		},
	}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what is built; if that is meant, run go test -update\n%s", path, got)
	}
}

func TestGolden(t *testing.T) {
	for name, change := range variants() {
		t.Run(name, func(t *testing.T) {
			c, f := plain()
			change(&c, &f)
			s, err := Build(c, f)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Build(c, f)
			if err != nil || !bytes.Equal(encode(t, s), encode(t, again)) {
				t.Errorf("built twice, it differs: %v", err)
			}
			if p := s.Linux.Seccomp; p != nil {
				if _, _, err := seccomp.Compile(p); err != nil {
					t.Errorf("the filter does not compile: %v", err)
				}
				if c.Seccomp == "builtin" {
					s.Linux.Seccomp = nil // see TestBuiltinFilter; it depends on the machine
				}
			}
			golden(t, name, encode(t, s))
		})
	}
}

func allowed(p *specs.LinuxSeccomp, name string) bool {
	return slices.ContainsFunc(p.Syscalls, func(s specs.LinuxSyscall) bool {
		return s.Action == specs.ActAllow && len(s.Args) == 0 && slices.Contains(s.Names, name)
	})
}

func TestBuiltinFilter(t *testing.T) {
	c, f := plain()
	s, err := Build(c, f)
	if err != nil {
		t.Fatal(err)
	}
	p := s.Linux.Seccomp
	if p.DefaultAction != specs.ActErrno || !allowed(p, "read") || !allowed(p, "chroot") || allowed(p, "mount") || allowed(p, "keyctl") {
		t.Errorf("the default filter is not Docker's: %+v", p)
	}
	c.CapAdd, c.CapDrop = []string{"SYS_ADMIN"}, []string{"SYS_CHROOT"}
	if s, err = Build(c, f); err != nil {
		t.Fatal(err)
	}
	if p = s.Linux.Seccomp; !allowed(p, "mount") || allowed(p, "chroot") {
		t.Error("the filter does not follow the capabilities")
	}
}

func TestRefusals(t *testing.T) {
	for text, change := range map[string]func(*record.Container, *Facts){
		"cannot share the host's network namespace when user namespaces are enabled": func(c *record.Container, f *Facts) { c.Network = "host" },
		"cannot use id map: it maps nothing":                                         func(c *record.Container, f *Facts) { c.Identity = record.Identity{Mode: "map"} },
		"no command specified":                                                       func(c *record.Container, f *Facts) { c.Path = "" },
		`invalid CapAdd: unknown capability: "CAP_NOPE"`:                             func(c *record.Container, f *Facts) { c.CapAdd = []string{"nope"} },
		"invalid ulimit type: files":                                                 func(c *record.Container, f *Facts) { c.Ulimits = []record.Ulimit{{Name: "files"}} },
		"ulimit soft limit must be less than or equal to hard limit: -1 > 5":         func(c *record.Container, f *Facts) { c.Ulimits = []record.Ulimit{{Name: "core", Soft: -1, Hard: 5}} },
		"the working directory 'srv' is invalid, it needs to be an absolute path":    func(c *record.Container, f *Facts) { c.WorkDir = "srv" },
		"cannot run as user 65536: the container's user namespace does not map it":   func(c *record.Container, f *Facts) { f.User.UID = 65536 },
		"cannot run as group 70000: the container's user namespace does not map it":  func(c *record.Container, f *Facts) { f.User.Groups = []uint32{70000} },
		"invalid mount path: 'x' mount path must be absolute":                        func(c *record.Container, f *Facts) { c.Mounts = []record.Mount{{Kind: "tmpfs", Target: "x"}} },
		"invalid specification: destination can't be '/'":                            func(c *record.Container, f *Facts) { c.Mounts = []record.Mount{{Kind: "tmpfs", Target: "/x/.."}} },
		"Duplicate mount point: /x": func(c *record.Container, f *Facts) {
			c.Mounts = []record.Mount{{Kind: "tmpfs", Target: "/x"}, {Kind: "bind", Target: "/x/"}}
		},
		`cannot mount /x: mount type "nfs" is unknown`: func(c *record.Container, f *Facts) { c.Mounts = []record.Mount{{Kind: "nfs", Target: "/x"}} },
		"cannot mount over /dev: the init process is there": func(c *record.Container, f *Facts) {
			c.Init, c.Mounts = true, []record.Mount{{Kind: "bind", Target: "/dev"}}
		},
		"cannot use seccomp profile best: it is none of builtin, unconfined, custom": func(c *record.Container, f *Facts) { c.Seccomp = "best" },
		"cannot use seccomp profile: it has no default action and no rules":          func(c *record.Container, f *Facts) { c.Seccomp, c.Profile = "custom", []byte("{}") },
		"cannot use seccomp profile: a rule is null":                                 func(c *record.Container, f *Facts) { c.Seccomp, c.Profile = "custom", []byte(`{"syscalls":[null]}`) },
		"cannot use seccomp profile: unexpected end of JSON input":                   func(c *record.Container, f *Facts) { c.Seccomp, c.Profile = "custom", []byte(`{`) },
		"cannot use seccomp profile: it is larger than 1 MiB":                        func(c *record.Container, f *Facts) { c.Seccomp, c.Profile = "custom", make([]byte, maxProfile+1) },
	} {
		c, f := plain()
		change(&c, &f)
		if _, err := Build(c, f); !fault.Is(err, fault.Invalid) || err.Error() != text {
			t.Errorf("got %v (%v), want %s", err, fault.ClassOf(err), text)
		}
	}
}

func TestPingRange(t *testing.T) {
	for name, c := range map[string]struct {
		gids []idmap.Span
		want string
	}{
		"one":                    {[]idmap.Span{{In: 0, Out: 100000, N: 65536}}, "0 65535"},
		"two":                    {[]idmap.Span{{In: 0, Out: 1000, N: 1}, {In: 1, Out: 100000, N: 10}}, "0 10"},
		"two, host ids downward": {[]idmap.Span{{In: 0, Out: 100000, N: 5}, {In: 10, Out: 1000, N: 10}}, "0 4"},
		"no 0":                   {[]idmap.Span{{In: 1, Out: 100000, N: 5}}, ""},
	} {
		cont, f := plain()
		f.User.GID = 1
		if c.gids[0].N == 1 {
			f.User.GID = 0
		}
		cont.Identity.GID = c.gids
		s, err := Build(cont, f)
		if err != nil || s.Linux.Sysctl["net.ipv4.ping_group_range"] != c.want {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

func TestExec(t *testing.T) {
	c, f := plain()
	c.WorkDir, c.NoNewPrivs, c.CapDrop = "/srv", true, []string{"ALL"}
	p, err := Exec(c, ask.Exec{Cmd: []string{"top", "-b"}, Env: []string{"LANG=de"}, TTY: true, ConsoleSize: [2]uint16{24, 80}}, f)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "exec", encode(t, p))
	f.User = User{UID: 33, GID: 33}
	p, err = Exec(c, ask.Exec{Cmd: []string{"id"}, Privileged: true, WorkDir: "/"}, f)
	if err != nil || len(p.Capabilities.Effective) != lastCap+1 || p.Cwd != "/" || p.User.UID != 33 {
		t.Errorf("privileged: %+v, %v", p, err)
	}
	if _, err := Exec(c, ask.Exec{}, f); err == nil || err.Error() != "No exec command specified" {
		t.Errorf("without command: %v", err)
	}
}

func FuzzCustomProfile(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"syscalls":[null]}`, `{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}]}`,
		`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[{"name":"read","action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":2,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}]}]}`,
		`{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"names":["a"],"name":"b"},{"names":["read"],"includes":{"minKernel":"4.8","arches":["amd64"],"caps":["CAP_X"]},"excludes":null}]}`,
		`{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["socket"],"action":"SCMP_ACT_NOTIFY","excludes":{"minKernel":"99.0"}}],"listenerPath":"/x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, facts := plain()
		c.Seccomp, c.Profile = "custom", text
		s, err := Build(c, facts)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%v is not the user's fault", err)
			}
			return
		}
		if s.Linux.Seccomp == nil {
			t.Fatal("a profile became no filter")
		}
		if filter, _, err := seccomp.Compile(s.Linux.Seccomp); err == nil && (len(filter) == 0 || len(filter) > 4096) {
			t.Errorf("%d instructions", len(filter))
		}
	})
}

func BenchmarkBuild(b *testing.B) {
	c, f := plain()
	for b.Loop() {
		if _, err := Build(c, f); err != nil {
			b.Fatal(err)
		}
	}
}
