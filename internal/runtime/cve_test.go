package runtime_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/launch/launchtest"
	"fief/internal/words/plan"
)

// outward are links that lead to a path of the host when followed in the wrong
// tree: %s is that path without its leading slash.
var outward = []string{"etc/../%s", "../../%s", "/proc/1/root/%s"}

// TestLinksOfTheImage: wherever links of an image lead, what is mounted, made
// and bound is in the container, and the host's tree is as it was: mount targets
// (CVE-2021-30465, CVE-2019-18837), missing directories on their way
// (CVE-2024-45310), files made for binds (CVE-2025-24965), and devices below a
// /dev that is a link (CVE-2026-41579, CVE-2026-47766). The container is root of
// the host: it could.
func TestLinksOfTheImage(t *testing.T) {
	source := t.TempDir() + "/source"
	if err := os.WriteFile(source, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, mount := range map[string]func(b *box, s *specs.Spec, link string) string{
		"mount target": func(b *box, s *specs.Spec, link string) string {
			os.Symlink(link, b.root+"/link")
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/sub/deep", Type: "tmpfs", Source: "tmpfs"})
			return "test -d /link/sub/deep && grep -q 'sub/deep tmpfs' /proc/mounts && echo inside"
		},
		"file of a bind": func(b *box, s *specs.Spec, link string) string {
			os.Symlink(link, b.root+"/link")
			b.binds = map[string]string{fmt.Sprint("mount:", len(s.Mounts)): source}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/file", Type: "bind", Source: source, Options: []string{"bind"}})
			return "grep -q content /link/file && echo inside"
		},
		"working directory": func(b *box, s *specs.Spec, link string) string {
			os.Symlink(link, b.root+"/link")
			s.Process.Cwd = "/link/work/dir"
			return "cd / && test -d /link/work/dir && echo inside"
		},
		"/dev": func(b *box, s *specs.Spec, link string) string {
			os.Remove(b.root + "/dev")
			os.Symlink(link, b.root+"/dev")
			s.Mounts = append(s.Mounts[:1], s.Mounts[3:4]...)
			return "test -c /dev/null && test -L /dev/ptmx && echo inside"
		},
		"parent of a device": func(b *box, s *specs.Spec, link string) string {
			os.Symlink(link, b.root+"/link")
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/link/node", Type: "c", Major: 1, Minor: 5}}
			return "test -c /link/node && echo inside"
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i, form := range outward {
				canary := t.TempDir()
				link := fmt.Sprintf(form, canary[1:])
				try := func(t *testing.T, weaken func(*plan.Plan)) string {
					os.RemoveAll(canary)
					os.Mkdir(canary, 0o755)
					b := newBox(t)
					s := launchtest.Spec("sh", "-c")
					hostRoot(t, b, s)
					s.Process.Args = append(s.Process.Args, mount(b, s, link))
					s.Mounts[0].Options = nil
					done := b.provide(s)
					defer done()
					before := tree(t, canary)
					out, _, err := b.try(s, weaken)
					if after := tree(t, canary); after != before {
						return "of the host: " + after
					}
					if err == nil && !strings.Contains(out, "inside") {
						return "not in the container: " + out
					}
					return ""
				}
				if harm := try(t, func(*plan.Plan) {}); harm != "" {
					t.Errorf("%s: %s", link, harm)
				}
				if i == 0 && try(t, pivotFirst(t)) == "" && name != "working directory" { // that is made after the host's tree is gone
					t.Error("a weakened start does no harm either: this proves nothing")
				}
			}
		})
	}
}

// TestRenamedMountPoint: who shares the root file system with a container and
// renames /proc in it while that starts does not get it rid of its masks.
func TestRenamedMountPoint(t *testing.T) {
	try := func(t *testing.T, weaken func(*plan.Plan)) string {
		b := newBox(t)
		s := launchtest.Spec("sh", "-c", "test -c /moved/interrupts || echo unmasked; (echo x >/moved/sys/kernel/domainname) 2>/dev/null && echo writable; test -d /moved/self && echo ran")
		gate, open, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer gate.Close()
		defer open.Close()
		held, holds, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		defer holds.Close()
		b.fds = map[string]int{"stdin": int(gate.Fd()), "stderr": int(holds.Fd())}
		go func() {
			held.Read(make([]byte, 1))
			os.Rename(b.root+"/proc", b.root+"/moved")
			os.Mkdir(b.root+"/proc", 0o755)
			open.Write([]byte("x"))
		}()
		out, _, err := b.try(s, func(p *plan.Plan) {
			weaken(p)
			insert(p, stepOf(t, p, "root", "rootfs")+1, plan.Step{Verb: "wait", Ops: []plan.Op{
				call(unix.SYS_WRITE, plan.Int(2), plan.Str("x"), plan.Int(1)), call(unix.SYS_READ, plan.Int(0), plan.Scratch("byte", 8, 0), plan.Int(1))}})
		})
		if err != nil {
			return ""
		}
		return strings.ReplaceAll(strings.TrimSuffix(out, "ran\n"), "\n", " ")
	}
	proves(t, try, func(p *plan.Plan) {
		root := slotOf(t, p, "rootfs")
		for i, s := range p.Steps {
			if s.Verb == "mask" || s.Verb == "read-only" {
				o := opOf(t, &p.Steps[i], unix.SYS_OPENAT2, 0)
				o.Args[0], o.Args[1] = plan.In(root), plan.Str(s.Object[1:])
			}
		}
	})
}
