package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestNamespaces: each kind is new when it is listed and the caller's when it is
// not; names, and maps, are for namespaces of the container's own.
func TestNamespaces(t *testing.T) {
	b := newBench(t)
	kinds := map[specs.LinuxNamespaceType]string{specs.UserNamespace: "user", specs.MountNamespace: "mnt", specs.PIDNamespace: "pid", specs.NetworkNamespace: "net",
		specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.CgroupNamespace: "cgroup", specs.TimeNamespace: "time"}
	all := append(template().Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	if len(all) != len(kinds) {
		t.Fatal("not all kinds")
	}
	look := func(without specs.LinuxNamespaceType) (text, own string) {
		b.config(func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(slices.Clone(all), func(n specs.LinuxNamespace) bool { return n.Type == without })
			s.Hostname = ""
			if without == specs.UserNamespace {
				s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
			}
			s.Process.Args = []string{"sh", "-c", "for i in user mnt pid net ipc uts cgroup time; do readlink /proc/self/ns/$i; done"}
		})
		own, err := os.Readlink("/proc/self/ns/" + kinds[without])
		if without != "" && err != nil {
			t.Fatal(err)
		}
		return b.ok("run", "one"), own
	}
	fresh, _ := look("")
	for _, kind := range kinds {
		if own, err := os.Readlink("/proc/self/ns/" + kind); err != nil || strings.Contains(fresh, own) {
			t.Errorf("%s is the caller's: %v", kind, err)
		}
	}
	for kind, name := range kinds {
		if kind == specs.MountNamespace {
			continue
		}
		if text, own := look(kind); !strings.Contains(text, own) {
			t.Errorf("without a namespace %s: %s, want %s", name, text, own)
		}
	}
	b.sees("box domain", "hostname; cat /proc/sys/kernel/domainname", func(s *specs.Spec) { s.Hostname, s.Domainname = "box", "domain" })
	without := func(kind specs.LinuxNamespaceType) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
		}
	}
	b.refuses("no UTS namespace", without(specs.UTSNamespace))
	b.refuses("no user namespace", without(specs.UserNamespace))
	b.refuses("without a mount namespace", without(specs.MountNamespace))
	b.refuses("joining a mount namespace", func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/proc/self/ns/mnt" })
	b.refuses("not known", func(s *specs.Spec) { s.Linux.Namespaces[1].Type = "odd" })
	b.refuses("given twice", func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[2]) })
}

// TestSysctl: those of the container's own namespaces are set, all others are
// refused by name.
func TestSysctl(t *testing.T) {
	b := newBench(t)
	b.sees("7 777 5 12", "cd /proc/sys; cat net/ipv4/ip_default_ttl kernel/shmmni fs/mqueue/queues_max user/max_mnt_namespaces", func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "7", "kernel/shmmni": "777", "fs.mqueue.queues_max": "5", "user.max_mnt_namespaces": "12"}
	})
	for key, without := range map[string]specs.LinuxNamespaceType{"vm.swappiness": "", "kernel.core_pattern": "", "kernel.hostname": "", "net/../vm/swappiness": "",
		"net.ipv4.ip_default_ttl": specs.NetworkNamespace, "kernel.shmmni": specs.IPCNamespace} {
		b.refuses("set sysctl "+key, func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == without })
			s.Linux.Sysctl = map[string]string{key: "7"}
		})
	}
	b.refuses("no such sysctl", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.nosuch": "7"} })
}

// TestRoot: its path may be relative to the bundle; read-only is the root mount.
func TestRoot(t *testing.T) {
	b := newBench(t)
	const look = "touch /new 2>/dev/null && echo written; rm -f /new; pwd; echo $A; :"
	change := func(path string, readOnly bool) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Root = &specs.Root{Path: path, Readonly: readOnly}
			s.Process.Cwd, s.Process.Env = "/dev", append(s.Process.Env, "A=b")
		}
	}
	b.sees("/dev b", look, change("rootfs", true))
	b.sees("written /dev b", look, change(filepath.Join(b.bundle, "rootfs"), false))
	b.refuses("no such file", change("nosuch", false))
	b.refuses("ociVersion", func(s *specs.Spec) { s.Version = "2.0.0" })
	for name, foreign := range map[string]func(*specs.Spec){
		"Solaris": func(s *specs.Spec) { s.Solaris = &specs.Solaris{} }, "Windows": func(s *specs.Spec) { s.Windows = &specs.Windows{} },
		"virtual machines": func(s *specs.Spec) { s.VM = &specs.VM{} }, "z/OS": func(s *specs.Spec) { s.ZOS = &specs.ZOS{} }, "FreeBSD": func(s *specs.Spec) { s.FreeBSD = &specs.FreeBSD{} },
	} {
		b.refuses("a section for "+name, foreign)
	}
}

// fields lists the leaves of a type by their JSON names.
func fields(t reflect.Type, path string) (out []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return []string{path}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		below := strings.TrimPrefix(path+"."+name, ".")
		switch platform := f.Tag.Get("platform"); {
		case f.Anonymous:
			out = append(out, fields(f.Type, path)...)
		case platform != "" && !strings.Contains(platform, "linux"):
			out = append(out, below)
		default:
			out = append(out, fields(f.Type, below)...)
		}
	}
	return out
}

// expand resolves one {a,b} of a name.
func expand(name string) []string {
	before, rest, found := strings.Cut(name, "{")
	list, after, closed := strings.Cut(rest, "}")
	if !found || !closed {
		return []string{name}
	}
	var out []string
	for _, one := range strings.Split(list, ",") {
		out = append(out, expand(before+one+after)...)
	}
	return out
}

// TestEveryField: docs/oci-runtime.md says of every field that the types of the
// specification have, and of nothing else, what becomes of it, and names a test
// that there is.
func TestEveryField(t *testing.T) {
	page, err := os.ReadFile("../../docs/oci-runtime.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, dir := range []string{".", "../../internal/launch", "../../internal/runtime", "../../internal/kernel/seccomp", "../../internal/kernel/cgroup"} {
		files, _ := filepath.Glob(dir + "/*_test.go")
		for _, name := range files {
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(source), -1) {
				tests[m[1]] = true
			}
		}
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| `") || len(cells) != 4 {
			continue
		}
		outcome, test := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[3])
		switch outcome {
		case "honoured", "refused", "not used", "dropped":
		default:
			t.Errorf("%s: outcome %q", cells[0], outcome)
		}
		if (outcome == "honoured" || outcome == "refused") && test == "" {
			t.Errorf("%s: no test", cells[0])
		}
		for _, name := range strings.Fields(strings.ReplaceAll(test, ",", " ")) {
			if !tests[name] {
				t.Errorf("%s: there is no %s", cells[0], name)
			}
		}
		for _, name := range expand(strings.Trim(strings.TrimSpace(cells[0]), "`")) {
			if known[name] {
				t.Errorf("%s stands there twice", name)
			}
			known[name] = true
		}
	}
	for _, name := range fields(reflect.TypeFor[specs.Spec](), "") {
		if !known[name] {
			t.Errorf("the page says nothing of %s", name)
		}
		delete(known, name)
	}
	for name := range known {
		t.Errorf("the specification has no %s", name)
	}
}
