package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// puller is a way to have the image.
type puller struct {
	contestant
	Acked []time.Duration // when it said so; Runs: when it was on the disk
	peak  int64           // kB of memory, the most of all its pulls
	begin func() pulling
}

// pulling is one pull about to be timed, in a place of its own.
type pulling struct {
	cmd    *exec.Cmd
	dir    string    // where everything goes
	engine *exec.Cmd // the daemon that pulls; nil: the command does
	end    func()    // ends the daemon
}

func (p *pulls) puller(name string, begin func() pulling) *puller {
	return &puller{contestant: contestant{Group: "pull", Name: name}, begin: begin}
}

// pullers lists those that work here.
func (p *pulls) pullers() []*puller {
	list := []*puller{p.puller("fief", p.fiefPull), p.puller("tar", p.tar)}
	if path, err := exec.LookPath("skopeo"); err == nil {
		list = append(list, p.puller("skopeo", func() pulling {
			dir := p.place()
			settled()
			exec.Command(path, "--version").Run() // read the program
			return pulling{dir: dir, cmd: exec.Command(path, "copy", "-q", "--src-tls-verify=false", "docker://"+p.name, "oci:"+dir+"/oci")}
		}))
	} else {
		p.lacks("skopeo", err)
	}
	if path, err := exec.LookPath("podman"); err != nil {
		p.lacks("podman", err)
	} else if one := p.puller("podman", func() pulling { return p.podmanPull(path) }); p.works(one) {
		list = append(list, one)
	}
	if d, err := p.findDocker(); err != nil {
		p.lacks("docker", err)
	} else if one := p.puller("docker", d.pull); p.works(one) {
		list = append(list, one)
	}
	return list
}

// works tries a puller once.
func (p *pulls) works(one *puller) bool {
	err := p.once(one)
	if err != nil {
		p.lacks(one.Name, "it cannot pull here:", err)
	}
	one.Runs, one.Acked, one.peak = nil, nil, 0
	return err == nil
}

// compare times pulls of all that work here.
func (p *pulls) compare() ([]*contestant, []verdict) {
	list := p.pullers()
	p.takeTurns(list)
	return p.judgePulls(list)
}

// takeTurns lets each pull, in turn, as often as asked.
func (p *pulls) takeTurns(list []*puller) {
	for range p.rounds {
		for _, one := range list {
			if err := p.once(one); err != nil {
				one.Fails++
				fmt.Fprintf(os.Stderr, "bench: %s: %v\n", one.Name, err)
			}
		}
	}
}

// once times a pull until everything is on the disk, which fief's answer means
// and others' does not.
func (p *pulls) once(one *puller) error {
	endIfAsked()
	run := one.begin()
	if run.end != nil {
		defer run.end()
	}
	var said strings.Builder
	run.cmd.Stderr = &said
	time.Sleep(time.Second)
	from := time.Now()
	if err := run.cmd.Start(); err != nil {
		return err
	}
	works := run.cmd
	if run.engine != nil {
		works = run.engine
	}
	meter := watch(works.Process.Pid)
	err := run.cmd.Wait()
	acked := time.Since(from)
	if err == nil {
		err = durable(run.dir)
	}
	took := time.Since(from)
	peak := meter.stop()
	if err != nil {
		return fmt.Errorf("%w: %s", err, lastLine([]byte(said.String())))
	}
	fmt.Fprintf(os.Stderr, "%s pull: %s, on disk after %s, %.0f MB of memory\n", one.Name, duration(ms(acked)), duration(ms(took)), float64(peak)/1e3)
	one.peak = max(one.peak, peak)
	one.Acked, one.Runs = append(one.Acked, acked), append(one.Runs, took)
	return nil
}

// engine is a fiefd of its own below a directory.
type engine struct {
	*stage
	dir string
	cmd *exec.Cmd
}

// newEngine starts one and waits until it answers.
func (s *stage) newEngine(dir string) *engine {
	e := &engine{stage: s, dir: dir}
	log, err := os.Create(filepath.Join(dir, "log"))
	check(err)
	defer log.Close()
	e.cmd = exec.Command(s.bin+"/fiefd", "--data-root", dir+"/data", "--exec-root", dir+"/run", "--id-registry", dir+"/ids", "--pool-size", "0")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	check(e.cmd.Start())
	for end := time.Now().Add(30 * time.Second); e.fief("version").Run() != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b, _ := os.ReadFile(log.Name())
			e.end()
			fatal(fmt.Errorf("fiefd in %s does not answer:\n%s", dir, b))
		}
	}
	return e
}

func (e *engine) fief(args ...string) *exec.Cmd {
	cmd := exec.Command(e.bin+"/fief", args...)
	cmd.Env = append(os.Environ(), "FIEF_HOST=unix://"+e.dir+"/run/docker.sock")
	return cmd
}

func (e *engine) end() {
	e.cmd.Process.Signal(os.Interrupt)
	e.cmd.Wait()
}

func (p *pulls) fiefPull() pulling {
	dir := p.place()
	settled()
	e := p.newEngine(dir)
	return pulling{dir: dir, engine: e.cmd, end: e.end, cmd: e.fief("pull", "-q", p.name)}
}

// tar extracts the layers, which it need not fetch.
func (p *pulls) tar() pulling {
	dir := p.place()
	settled()
	var script strings.Builder
	for i, layer := range p.layers {
		check(exec.Command("cat", layer).Run()) // the registry has them in memory
		fmt.Fprintf(&script, "mkdir %[1]s/%[2]d && tar -C %[1]s/%[2]d -xzf %[3]s && ", dir, i, layer)
	}
	return pulling{dir: dir, cmd: exec.Command("sh", "-c", script.String()+"true")}
}

// podman is podman's command line with a store of its own below dir.
type podman struct {
	path, dir, runroot string
}

// newPodman makes a store; release says what is to be done with it at last.
func newPodman(path, dir string) (m *podman, release func()) {
	runroot, err := os.MkdirTemp("", "fb") // podman wants it to be short
	check(err)
	return &podman{path, dir, runroot}, func() {
		syscall.Unmount(dir+"/root/overlay", syscall.MNT_DETACH)
		os.RemoveAll(runroot)
	}
}

func (m *podman) cmd(args ...string) *exec.Cmd {
	cmd := exec.Command(m.path, append([]string{"--root", m.dir + "/root", "--runroot", m.runroot, "--cgroup-manager", "cgroupfs",
		"--events-backend", "none", "--storage-driver", "overlay"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+m.dir) // blobs on their way
	return cmd
}

func (p *pulls) podmanPull(path string) pulling {
	dir := p.place()
	m, release := newPodman(path, dir)
	p.undo = append(p.undo, release)
	settled()
	m.cmd("version").Run() // read the program
	return pulling{dir: dir, cmd: m.cmd("pull", "-q", "--tls-verify=false", p.name)}
}
