// Package userns makes user namespaces that exist only to carry a map.
package userns

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"fief/internal/kernel/sysx"
	"fief/internal/words/idmap"
)

// New returns a descriptor of a new user namespace with these maps, for
// mount_setattr(2). The caller closes it; nothing else refers to the namespace.
func New(pair idmap.Pair) (*os.File, error) {
	runtime.LockOSThread() // a tracer is a thread (ptrace(2))
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: lines(pair.UID),
		GidMappings: lines(pair.GID),
		Ptrace:      true, // stops at execve, so that nothing of it ever runs
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, sysx.Fault("make user namespace for", fmt.Sprint(pair), err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	cmd.Process.Kill()
	cmd.Wait()
	return f, sysx.Fault("open user namespace of", fmt.Sprint(pair), err)
}

func lines(m idmap.Map) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, s := range m.Spans() {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(s.In), HostID: int(s.Out), Size: int(s.N)})
	}
	return out
}
