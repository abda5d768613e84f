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

// TestFakeNull: a /dev/null that is none covers nothing (CVE-2025-31133).
func TestFakeNull(t *testing.T) {
	proves(t, func(t *testing.T, weaken func(*plan.Plan)) string {
		b := newBox(t)
		dev := t.TempDir()
		if err := os.WriteFile(dev+"/null", []byte("planted\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		s := launchtest.Spec("cat", "/proc/interrupts")
		s.Mounts[1] = specs.Mount{Destination: "/dev", Type: "bind", Source: dev, Options: []string{"bind"}}
		s.Mounts = append(s.Mounts[:2], s.Mounts[3:4]...)
		b.binds = map[string]string{"mount:1": dev}
		out, _, _ := b.try(s, weaken) // refused
		return out
	}, func(p *plan.Plan) { keepOps(p, stepOf(t, p, "open", "/dev/null"), 1) })
}

// TestConsoleIsTheTerminal: /dev/console is the terminal that was opened, whatever
// lies where that one seems to be (CVE-2025-52565).
func TestConsoleIsTheTerminal(t *testing.T) {
	proves(t, func(t *testing.T, weaken func(*plan.Plan)) string {
		b := newBox(t)
		planted := t.TempDir()
		if err := os.WriteFile(planted+"/0", nil, 0o666); err != nil {
			t.Fatal(err)
		}
		os.Chmod(b.root+"/data", 0o777)
		s := launchtest.Spec("sh", "-c", "test -c /dev/console || echo planted >/data/harm")
		s.Process.Terminal = true
		b.binds = map[string]string{fmt.Sprint("mount:", len(s.Mounts)): planted}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev/pts", Type: "bind", Source: planted, Options: []string{"bind"}})
		p, err := compiler().Container(s, b.opt)
		if err != nil {
			t.Fatal(err)
		}
		weaken(&p)
		encoded, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		fds, done := b.files(&p, -1)
		proc, err := b.launch(encoded, fds)
		done()
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(proc.PIDFD)
		wait(t, proc.PID)
		unix.Close(proc.Console)
		harm, _ := os.ReadFile(b.root + "/data/harm")
		return string(harm)
	}, func(p *plan.Plan) {
		o := opOf(t, &p.Steps[stepOf(t, p, "bind", "terminal")], unix.SYS_OPEN_TREE, 0)
		o.Args = []plan.Arg{plan.In(slotOf(t, p, "rootfs")), plan.Str("dev/pts/0"), plan.Bits(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)}
	})
}

// TestSysctlsArePrivate: what is mounted over /proc/sys gets no sysctl's value
// and leads none elsewhere (CVE-2025-52881).
func TestSysctlsArePrivate(t *testing.T) {
	proves(t, func(t *testing.T, weaken func(*plan.Plan)) string {
		b := newBox(t)
		planted := t.TempDir()
		if err := os.WriteFile(planted+"/shmmni", nil, 0o666); err != nil {
			t.Fatal(err)
		}
		os.Chmod(planted+"/shmmni", 0o666)
		s := launchtest.Spec("true")
		s.Linux.Sysctl = map[string]string{"kernel.shmmni": "77"}
		b.binds = map[string]string{fmt.Sprint("mount:", len(s.Mounts)): planted}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc/sys/kernel", Type: "bind", Source: planted, Options: []string{"bind"}})
		b.try(s, weaken) // refused
		return readFile(t, planted+"/shmmni")
	}, func(p *plan.Plan) {
		o := opOf(t, &p.Steps[stepOf(t, p, "sysctl", "kernel.shmmni")], unix.SYS_OPENAT2, 0)
		o.Args[2], o.Args[3] = plainOpen(unix.O_WRONLY)
	})
}

// TestLabelsAreWrittenToTheKernel: a process whose label cannot be had does not
// run, whatever is planted where /proc should be (CVE-2019-16884,
// CVE-2019-19921, CVE-2025-52881).
func TestLabelsAreWrittenToTheKernel(t *testing.T) {
	proves(t, func(t *testing.T, weaken func(*plan.Plan)) string {
		b := newBox(t)
		s := launchtest.Spec("echo", "ran without its label")
		s.Process.ApparmorProfile = "fief-no-such-profile"
		s.Mounts, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = s.Mounts[1:], nil, nil
		attr := b.root + "/proc/thread-self/attr/apparmor"
		if err := os.MkdirAll(attr, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(attr+"/exec", nil, 0o666); err != nil {
			t.Fatal(err)
		}
		os.Chmod(attr+"/exec", 0o666)
		out, _, _ := b.try(s, weaken) // refused
		return out + readFile(t, attr+"/exec")
	}, func(p *plan.Plan) {
		at := stepOf(t, p, "open", "AppArmor profile")
		keepOps(p, at, 2)
		s := remove(p, at)
		s.Ops[0].Skip = 1
		insert(p, stepOf(t, p, "root", "rootfs")+1, s)
	})
}

// TestNothingInheritable: capabilities are not inheritable unless asked for: a
// program with file capabilities would gain them (CVE-2022-27650).
func TestNothingInheritable(t *testing.T) {
	proves(t, func(t *testing.T, weaken func(*plan.Plan)) string {
		b := newBox(t)
		out, _, err := b.try(launchtest.Spec("cat", "/proc/self/status"), weaken)
		if err != nil {
			t.Fatal(err)
		}
		if got := field(out, "CapInh"); got != "0000000000000000" {
			return got
		}
		return ""
	}, func(p *plan.Plan) {
		bits := []byte{0xfb, 0x25, 4, 0xa8, 0xfb, 0x25, 4, 0xa8, 0xfb, 0x25, 4, 0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		opOf(t, &p.Steps[stepOf(t, p, "set", "capabilities")], unix.SYS_CAPSET, 0).Args[1] = plan.Bytes(bits, "all inheritable")
	})
}

// TestLeakedDirectory: no descriptor of the host is in reach of the working
// directory, the program or the container (CVE-2024-21626): here the directory of
// the cgroup to start in.
func TestLeakedDirectory(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(host+"/secret", []byte("of the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("tool: busybox-static")
	}
	if err := os.WriteFile(host+"/echo", program, 0o755); err != nil {
		t.Fatal(err)
	}
	os.Chmod(host, 0o755)
	dir, err := unix.Open(host, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	leak := fmt.Sprint("/proc/self/fd/", dir)
	with := func(change func(*specs.Spec)) attempt {
		return func(t *testing.T, weaken func(*plan.Plan)) string {
			b := newBox(t)
			s := launchtest.Spec("cat", "secret")
			b.fds = map[string]int{"cgroup": dir}
			b.opt.Cgroup = true
			change(s)
			out, _, _ := b.try(s, func(p *plan.Plan) {
				p.Clone.Cgroup = 0 // it is none: only its descriptor is of interest
				weaken(p)
			})
			if !strings.Contains(out, "of the host") {
				return ""
			}
			return out
		}
	}
	t.Run("working directory", func(t *testing.T) {
		proves(t, with(func(s *specs.Spec) { s.Process.Cwd = leak }), func(p *plan.Plan) {
			at := stepOf(t, p, "chdir", leak)
			p.Steps[at].Ops = []plan.Op{call(unix.SYS_CHDIR, plan.Str(leak))}
			again := stepOf(t, &plan.Plan{Steps: p.Steps[at+1:]}, "chdir", leak) + at + 1
			p.Steps[again].Ops = nil
		})
	})
	t.Run("program", func(t *testing.T) {
		proves(t, with(func(s *specs.Spec) { s.Process.Args = []string{leak + "/echo", "of the host"} }), func(p *plan.Plan) {
			remove(p, stepOf(t, p, "close", "all"))
		})
	})
	t.Run("descriptors", func(t *testing.T) {
		proves(t, with(func(s *specs.Spec) { s.Process.Args = []string{"cat", leak + "/secret"} }), func(p *plan.Plan) {
			remove(p, stepOf(t, p, "close", "all"))
			insert(p, len(p.Steps)-1, plan.Step{Verb: "keep", Ops: []plan.Op{call(unix.SYS_FCNTL, plan.Int(dir), plan.Int(unix.F_SETFD), plan.Int(0))}})
		})
	})
}

// TestUserOfTheProcess: the process is the user that was asked for
// (CVE-2026-30892).
func TestUserOfTheProcess(t *testing.T) {
	proves(t, func(t *testing.T, weaken func(*plan.Plan)) string {
		b := newBox(t)
		s := launchtest.Spec("cat", "/proc/self/status")
		s.Process.User = specs.User{UID: 1, GID: 2}
		out, _, err := b.try(s, weaken)
		if err != nil {
			t.Fatal(err)
		}
		if uid, gid := field(out, "Uid"), field(out, "Gid"); uid != "1\t1\t1\t1" || gid != "2\t2\t2\t2" {
			return uid + gid
		}
		return ""
	}, func(p *plan.Plan) { remove(p, stepOf(t, p, "become", "user 1:2")) })
}

// TestHiddenExec: an exec's process on its way is closed to the container's root
// with all capabilities (CVE-2016-9962): its memory, descriptors and program.
func TestHiddenExec(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("sleep", "1000")
	with := b.running(s)
	name := strings.TrimSpace(readFile(t, "/proc/self/comm"))
	try := func(t *testing.T, weaken func(*plan.Plan)) string {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		opt := b.opt
		opt.Gate = true
		process := *s.Process
		process.Args = []string{"true"}
		p, err := compiler().Exec(&process, s, opt)
		if err != nil {
			t.Fatal(err)
		}
		weaken(&p)
		encoded, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		null := must(unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0))
		defer unix.Close(null)
		proc, err := b.launch(encoded, []int{with.PIDFD, null, null, null, int(r.Fd())})
		if err != nil {
			t.Fatal(err)
		}
		spy := launchtest.Spec("sh", "-c", spyOn, "sh", name)
		powerful(t, spy)
		out, code, err := b.inside(with, s, spy.Process)
		w.Write([]byte("x"))
		unix.Close(proc.PIDFD)
		wait(t, proc.PID)
		if err != nil || code != 0 || !strings.Contains(out, "found") {
			t.Fatal(err, code, out)
		}
		return strings.ReplaceAll(strings.TrimSuffix(out, "found\n"), "\n", " ")
	}
	shown := plan.Step{Verb: "show", Ops: []plan.Op{call(unix.SYS_PRCTL, plan.Int(unix.PR_SET_DUMPABLE), plan.Int(1))}}
	proves(t, try, func(p *plan.Plan) { insert(p, stepOf(t, p, "await", "gate"), shown) })
	for _, change := range []string{"root of the user namespace", "user 0:0"} { // as with the sysctl fs.suid_dumpable=1
		if harm := try(t, func(p *plan.Plan) { insert(p, stepOf(t, p, "become", change)+1, shown) }); harm != "" {
			t.Errorf("shown by becoming %s: %s", change, harm)
		}
	}
}
