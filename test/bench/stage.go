package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// baseline is what run times are compared with: a bare OCI runtime doing the
// same job, with a user namespace, without daemon, image or overlay.
const baseline = "crun run (bundle, user namespace)"

// stage is everything the contestants need: an engine, a root filesystem, OCI
// bundles, and the compiled floor.
type stage struct {
	work, bin, rootfs string
	daemon            *exec.Cmd
	held              string   // a running container, for exec
	running           []func() // ends those of other runtimes
	env               []string
}

func newStage(work string) *stage {
	s := &stage{work: work, bin: filepath.Join(root(), "bin"), rootfs: filepath.Join(work, "rootfs")}
	s.env = append(os.Environ(), "FIEF_HOST=unix://"+work+"/run/docker.sock", "DOCKER_HOST=unix://"+work+"/run/docker.sock")
	s.makeRootfs()
	check(os.Mkdir(filepath.Join(work, "run"), 0o700))
	log, err := os.Create(filepath.Join(work, "log"))
	check(err)
	s.daemon = exec.Command(s.bin+"/fiefd", "--data-root", work+"/data", "--exec-root", work+"/run", "--id-registry", work+"/ids")
	s.daemon.Stdout, s.daemon.Stderr = log, log
	check(syscall.Mount("tmpfs", s.work+"/run", "tmpfs", 0, "mode=700")) // as /run is
	check(s.daemon.Start())
	for end := time.Now().Add(10 * time.Second); s.fief("version").Run() != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b, _ := os.ReadFile(filepath.Join(work, "log"))
			fatal(fmt.Errorf("fiefd does not answer:\n%s", b))
		}
	}
	s.must(exec.Command("tar", "-C", s.rootfs, "-cf", work+"/busybox.tar", "."))
	s.must(s.fief("import", work+"/busybox.tar", "busybox"))
	s.held = "held"
	s.must(s.fief("run", "-d", "--name", s.held, "--network", "none", "busybox", "sleep", "100000"))
	return s
}

func (s *stage) close() {
	for _, end := range s.running {
		end()
	}
	s.fief("rm", "-f", s.held).Run()
	s.daemon.Process.Signal(os.Interrupt)
	s.daemon.Wait()
	syscall.Unmount(s.work+"/run", syscall.MNT_DETACH)
	s.afterPodman()
}

// afterPodman removes what podman leaves: a mount over its own store, which
// keeps it from being removed, and the empty groups of its containers.
func (s *stage) afterPodman() {
	syscall.Unmount(s.work+"/podman/overlay", syscall.MNT_DETACH)
	const groups = "/sys/fs/cgroup/libpod_parent"
	entries, _ := os.ReadDir(groups)
	for _, e := range entries {
		syscall.Rmdir(filepath.Join(groups, e.Name()))
	}
	syscall.Rmdir(groups)
}

func (s *stage) must(cmd *exec.Cmd) {
	if out, err := cmd.CombinedOutput(); err != nil {
		fatal(fmt.Errorf("%s: %w\n%s", cmd, err, out))
	}
}

func (s *stage) fief(args ...string) *exec.Cmd {
	cmd := exec.Command(s.bin+"/fief", args...)
	cmd.Env = s.env
	return cmd
}

// makeRootfs makes a root filesystem of a static busybox.
func (s *stage) makeRootfs() {
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "root", "run"} {
		check(os.MkdirAll(filepath.Join(s.rootfs, d), 0o755))
	}
	b, err := os.ReadFile("/bin/busybox")
	check(err)
	check(os.WriteFile(filepath.Join(s.rootfs, "bin/busybox"), b, 0o755))
	for _, name := range []string{"sh", "true", "sleep", "cat", "id"} {
		check(os.Symlink("busybox", filepath.Join(s.rootfs, "bin", name)))
	}
	check(os.WriteFile(filepath.Join(s.rootfs, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\n"), 0o644))
	check(os.WriteFile(filepath.Join(s.rootfs, "etc/group"), []byte("root:x:0:\n"), 0o644))
}

func command(name string, args ...string) func() *exec.Cmd {
	return func() *exec.Cmd { return exec.Command(name, args...) }
}

// contestants lists what is there to be timed.
func (s *stage) contestants() []*contestant {
	list := []*contestant{
		{Group: "nothing", Name: "static C true", make: command(s.compile("true", "true.c", "-Os"))},
		{Group: "nothing", Name: "empty Go program", make: command(s.emptyGo())},
		{Group: "run", Name: "fief run --rm --network none busybox true", make: s.timed("run", "--rm", "--network", "none", "busybox", "true")},
		{Group: "run", Name: "fief run (host image)", make: s.timed("run", "--rm", "--network", "none", "host", "true")},
		{Group: "exec", Name: "fief exec held true", make: s.timed("exec", s.held, "true")},
		{Group: "ps", Name: "fief ps", make: s.timed("ps")},
	}
	list = append(list, s.execs()...)
	list = append(list, s.networks()...)
	list = append(list, s.bundles()...)
	return append(list, s.peers()...)
}

func (s *stage) timed(args ...string) func() *exec.Cmd {
	return func() *exec.Cmd { return s.fief(args...) }
}

func (s *stage) compile(name, source string, flags ...string) string {
	out := filepath.Join(s.work, name)
	s.must(exec.Command("gcc", append(flags, "-static", "-o", out, filepath.Join(root(), "test/bench/floor", source))...))
	return out
}

func (s *stage) emptyGo() string {
	src, out := filepath.Join(s.work, "empty.go"), filepath.Join(s.work, "empty")
	check(os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o600))
	s.must(exec.Command("go", "build", "-o", out, src))
	return out
}

// floor runs the floor program, which times itself: what the kernel alone
// needs for a container like ours. Its rows are complete.
func (s *stage) floor(n int, idle time.Duration) []*contestant {
	cmd := exec.Command(s.compile("floor", "floor.c", "-O2"), "-d", s.work+"/floor.d", "-t", s.work+"/true",
		"-n", strconv.Itoa(n), "-g", strconv.Itoa(int(idle.Milliseconds())), "-c", "none", "-s", "tree", "-V", "-T", "-U")
	out, err := cmd.CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: the floor program fails here: %s", out)
		return nil
	}
	var list []*contestant
	for line := range strings.Lines(string(out)) {
		for _, stage := range []string{"start (to exec)", "start+exit "} {
			if rest, ok := strings.CutPrefix(line, stage); ok {
				list = append(list, floorRow(strings.TrimSpace(stage), strings.Fields(rest)))
			}
		}
	}
	return list
}

// floorRow reads the columns min, p50 and p90 in microseconds.
func floorRow(stage string, columns []string) *contestant {
	c := &contestant{Group: "floor", Name: "floor, in process: " + stage}
	for i, to := range []*float64{&c.Min, &c.P50, &c.P90} {
		us, err := strconv.ParseFloat(columns[i], 64)
		check(err)
		*to = ms(time.Duration(us * 1000))
	}
	return c
}

// bundles are bare OCI runtimes on a bundle with the same root filesystem.
func (s *stage) bundles() (list []*contestant) {
	for _, name := range []string{"crun", "runc"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		mapped, plain := s.bundle(path, name+"-userns", true), s.bundle(path, name+"-plain", false)
		list = append(list,
			&contestant{Group: "run", Name: name + " run (bundle, user namespace)", make: s.oci(path, mapped)},
			&contestant{Group: "run", Name: name + " run (bundle, as spec makes it)", make: s.oci(path, plain)})
	}
	list = append(list, &contestant{Group: "run", Name: "fief-oci run (bundle, user namespace)",
		make: s.oci(s.bin+"/fief-oci", s.bundle("crun", "fief-oci", true))})
	return list
}

// oci runs a bundle under an id that no other run has. The runtimes' state is on
// a tmpfs, as it is by default for all of them.
func (s *stage) oci(runtime, bundle string) func() *exec.Cmd {
	n := 0
	return func() *exec.Cmd {
		n++
		id := fmt.Sprintf("bench-%d-%s-%d", os.Getpid(), filepath.Base(bundle), n)
		return exec.Command(runtime, "--root", s.work+"/run/oci-"+filepath.Base(runtime), "run", "--bundle", bundle, id)
	}
}

// bundle writes config.json as the runtime's own `spec` makes it, running
// /bin/true without a terminal, with or without a user namespace.
func (s *stage) bundle(runtime, name string, userns bool) string {
	dir := filepath.Join(s.work, "bundle-"+name)
	check(os.MkdirAll(dir, 0o755))
	spec := exec.Command(runtime, "spec")
	spec.Dir = dir
	s.must(spec)
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	check(err)
	var c map[string]any
	check(json.Unmarshal(b, &c))
	process, linux := c["process"].(map[string]any), c["linux"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/bin/true"}
	c["root"] = map[string]any{"path": s.ownRootfs(name, userns)}
	delete(linux, "resources")    // device rules need a limit raised that not every machine lets root raise
	addNamespace(linux, "cgroup") // of which a user namespace needs one to mount cgroup2
	if userns {
		addNamespace(linux, "user")
		m := []any{map[string]any{"containerID": 0, "hostID": 100000, "size": 65536}}
		linux["uidMappings"], linux["gidMappings"] = m, m
	}
	b, err = json.Marshal(c)
	check(err)
	check(os.WriteFile(path, b, 0o600))
	return dir
}

func addNamespace(linux map[string]any, kind string) {
	list := linux["namespaces"].([]any)
	for _, n := range list {
		if n.(map[string]any)["type"] == kind {
			return
		}
	}
	linux["namespaces"] = append(list, map[string]any{"type": kind})
}

// ownRootfs copies the root filesystem and, for a user namespace, chowns it:
// what a bare runtime needs done beforehand.
func (s *stage) ownRootfs(name string, userns bool) string {
	dir := filepath.Join(s.work, "rootfs-"+name)
	s.must(exec.Command("cp", "-a", s.rootfs, dir))
	check(os.Chmod(s.work, 0o711))
	if userns {
		s.must(exec.Command("chown", "-R", "100000:100000", dir))
	}
	return dir
}

// peers are other engines, as far as they are installed and work here.
func (s *stage) peers() (list []*contestant) {
	if path, err := exec.LookPath("bwrap"); err == nil {
		list = append(list, &contestant{Group: "run", Name: "bwrap --unshare-all",
			make: command(path, "--unshare-all", "--bind", s.rootfs, "/", "--proc", "/proc", "--dev", "/dev", "/bin/true")})
	}
	if path, err := exec.LookPath("podman"); err == nil {
		base := []string{"--root", s.work + "/podman", "--runroot", s.work + "/podman-run", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}
		run := append(append([]string{}, base...), "run", "--rm", "--network", "none", "--cgroups", "disabled",
			"--ulimit", "host", "busybox", "true") // groups would be left behind, and not every root may raise limits
		tried := exec.Command(path, append(append([]string{}, base...), "import", s.work+"/busybox.tar", "busybox")...)
		if out, err := tried.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: podman is left out, it cannot import here: %s", out)
		} else if out, err := exec.Command(path, run...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: podman is left out, it cannot run here: %s", out)
		} else {
			list = append(list, &contestant{Group: "run", Name: "podman run --rm --network none", make: command(path, run...)})
		}
	}
	if path, err := exec.LookPath("docker"); err == nil {
		list = append(list, &contestant{Group: "run", Name: "docker client on fiefd, run --rm", make: func() *exec.Cmd {
			cmd := exec.Command(path, "run", "--rm", "busybox", "true")
			cmd.Env = s.env
			return cmd
		}})
		if exec.Command(path, strings.Fields("-H unix:///var/run/docker.sock version")...).Run() == nil {
			list = append(list, &contestant{Group: "run", Name: "docker run --rm --network none",
				make: command(path, "-H", "unix:///var/run/docker.sock", "run", "--rm", "--network", "none", "busybox", "true")})
		}
	}
	return list
}
