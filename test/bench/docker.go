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

// dockerPackages hold Docker's engine. They are unpacked, not installed: an
// installed one would start.
var dockerPackages = []string{"docker.io", "containerd"}

// docker is Docker's engine, which here pulls and never runs anything.
type docker struct {
	*pulls
	path string // PATH with dockerd, containerd and docker
}

// findDocker takes the installed engine or Debian's packages of it.
func (p *pulls) findDocker() (*docker, error) {
	d := &docker{pulls: p, path: os.Getenv("PATH")}
	if _, err := exec.LookPath("dockerd"); err == nil {
		return d, nil
	}
	debs, err := fetchDebs(p.cache, dockerPackages)
	if err != nil {
		return nil, err
	}
	to := filepath.Join(p.dir, "docker-engine")
	for _, deb := range debs {
		if out, err := exec.Command("dpkg", "-x", deb, to).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("dpkg -x: %w: %s", err, lastLine(out))
		}
	}
	d.path = to + "/usr/sbin:" + to + "/usr/bin:" + d.path
	return d, nil
}

// command finds its program in the engine's PATH.
func (d *docker) command(name string, args ...string) *exec.Cmd {
	for _, dir := range filepath.SplitList(d.path) {
		if path := filepath.Join(dir, name); syscall.Access(path, 1) == nil {
			name = path
			break
		}
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+d.path)
	return cmd
}

// pull starts an engine with the overlay2 driver on an empty data root. It
// starts its own containerd.
func (d *docker) pull() pulling {
	dir := d.place()
	check(os.WriteFile(dir+"/daemon.json", []byte("{}"), 0o600))
	settled()
	log, err := os.Create(dir + "/log")
	check(err)
	defer log.Close()
	daemon := d.command("dockerd", "--config-file", dir+"/daemon.json", "--data-root", dir+"/data", "--exec-root", dir+"/run",
		"--pidfile", dir+"/pid", "-H", "unix://"+dir+"/sock", "--storage-driver", "overlay2",
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		return pulling{dir: dir, cmd: exec.Command("dockerd")} // which says why
	}
	client := func(args ...string) *exec.Cmd {
		return d.command("docker", append([]string{"-H", "unix://" + dir + "/sock"}, args...)...)
	}
	for end := time.Now().Add(30 * time.Second); client("version").Run() != nil && time.Now().Before(end) && alive(daemon); {
		time.Sleep(100 * time.Millisecond)
	}
	return pulling{dir: dir, engine: daemon, end: func() { endDocker(daemon) }, cmd: client("pull", "-q", d.name)}
}

// alive reports whether a process that was not waited for still runs.
func alive(cmd *exec.Cmd) bool {
	_, after, _ := strings.Cut(first(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid)), ") ")
	return after != "" && after[0] != 'Z'
}

// endDocker ends the engine, and its containerd when that is left behind.
func endDocker(daemon *exec.Cmd) {
	others := children(daemon.Process.Pid)
	daemon.Process.Signal(syscall.SIGTERM)
	daemon.Wait()
	for _, pid := range others {
		for end := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				syscall.Kill(pid, syscall.SIGKILL)
				break
			}
		}
	}
}
