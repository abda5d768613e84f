package main

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/cgroup"
	"fief/internal/kernel/systemd"
	"fief/internal/words/fault"
)

// holderName is what this program calls itself as the process that a scope is
// made around: systemd takes none that is empty, and a container is born in its
// group, with the limits and the guard of devices in force.
const holderName = "fief-oci-holder"

// hold waits until whoever started the holder is done with it or dead.
func hold() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// makeScope has systemd make the container's group, a delegated scope with the
// limits that systemd has properties for. The scope lives on when the container's
// process is in it; until the files are closed it holds an idle process.
func (c *container) makeScope(tree *cgroup.Tree, s *specs.Spec, f *files) error {
	if tree.Mode() != cgroup.Unified {
		return fault.New(fault.Unsupported, "use", "--systemd-cgroup", "it needs a host with cgroup v2 alone", "use the cgroupfs manager")
	}
	text := s.Linux.CgroupsPath
	if text == "" {
		text = ":fief-oci:" + c.ID
	}
	scope, err := systemd.Parse(text)
	if err != nil {
		return err
	}
	list, err := systemd.Limits(s.Linux.Resources)
	if err != nil {
		return err
	}
	annotated, err := systemd.Annotated(s.Annotations)
	if err != nil {
		return err
	}
	bus, err := systemd.Connect()
	if err != nil {
		return err
	}
	defer bus.Close()
	pid, err := startHolder(f)
	if err != nil {
		return err
	}
	if err := bus.StartScope(scope, pid, "OCI container "+c.ID, append(list, annotated...)); err != nil {
		return err
	}
	c.Unit = scope.Unit
	c.Cgroup, err = groupOf(pid)
	return err
}

// startHolder starts the process that a scope is made around. It ends when the
// files are closed.
func startHolder(f *files) (pid int, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return 0, fault.Wrap(fault.Internal, "make", "a pipe", err, "")
	}
	f.own = append(f.own, ends[1])
	in := os.NewFile(uintptr(ends[0]), "pipe")
	defer in.Close()
	holder := exec.Cmd{Path: "/proc/self/exe", Args: []string{holderName}, Stdin: in, Env: []string{}, Dir: "/"}
	if err := holder.Start(); err != nil {
		return 0, fault.Wrap(fault.Internal, "start", holderName, err, "")
	}
	go holder.Wait()
	return holder.Process.Pid, nil
}

// groupOf is the v2 group of a process: proc(5), the line of hierarchy 0. What
// systemd calls a group is not always its unit's name.
func groupOf(pid int) (string, error) {
	name := "/proc/" + strconv.Itoa(pid) + "/cgroup"
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fault.Wrap(fault.Internal, "read", name, err, "")
	}
	for line := range strings.Lines(string(b)) {
		if group, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok && strings.HasSuffix(group, ".scope") {
			return group, nil
		}
	}
	return "", fault.New(fault.Internal, "read", name, "systemd has not put the process into a scope that this one sees", "")
}

// limit changes limits of a container that runs, and has systemd keep them.
func (c *container) limit(tree *cgroup.Tree, r *specs.LinuxResources) error {
	if c.Unit == "" {
		return tree.Limit(c.Cgroup, r)
	}
	list, err := systemd.Limits(r)
	if err != nil {
		return err
	}
	bus, err := systemd.Connect()
	if err != nil {
		return err
	}
	defer bus.Close()
	if err := bus.Set(c.Unit, list); err != nil {
		return err
	}
	return tree.Limit(c.Cgroup, r)
}

// stopScope kills what is left in the container's scope and has systemd forget it.
func (c *container) stopScope(tree *cgroup.Tree) {
	tree.Kill(c.Cgroup)
	bus, err := systemd.Connect()
	if err != nil {
		return
	}
	defer bus.Close()
	bus.Stop(c.Unit)
}
