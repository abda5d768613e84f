package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt"
	"fief/internal/kernel/space"
)

// attachHere is the first argument of this program when it is to attach, in the
// namespaces it was started in, the mount that is its descriptor 3.
const attachHere = "attach-here"

// donor calls try with a process that has all namespaces of its own.
func donor(try func(pid int, dir string) error) func(string) error {
	return func(dir string) error {
		cmd := exec.Command("/bin/sleep", "100")
		inNamespaces(cmd, 1<<30)
		if err := cmd.Start(); err != nil {
			return err
		}
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
		}()
		return try(cmd.Process.Pid, dir)
	}
}

func inNamespaces(cmd *exec.Cmd, base int) {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: base, Size: 1 << 16}}
	cmd.SysProcAttr = &syscall.SysProcAttr{UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC}
}

func ns(pid int, kind string) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
}

// toldPID asks for a proc of a pid namespace by its option alone.
func toldPID(pid int, _ string) error {
	f, err := ns(pid, "pid")
	if err != nil {
		return err
	}
	defer f.Close()
	fs := mnt.NewFS("proc").FD("pidns", f)
	defer fs.Close()
	return fs.Err()
}

// handed makes a mount of another process's namespace, of a kind, and lets a
// third with all namespaces of its own attach it.
func handed(kind string, make func(*os.File) (*os.File, error)) func(int, string) error {
	return func(pid int, dir string) error {
		f, err := ns(pid, kind)
		if err != nil {
			return err
		}
		defer f.Close()
		mount, err := make(f)
		if err != nil {
			return err
		}
		defer mount.Close()
		return attachElsewhere(mount, dir)
	}
}

func attachElsewhere(mount *os.File, dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, attachHere, dir)
	cmd.ExtraFiles = []*os.File{mount}
	inNamespaces(cmd, 1<<30+1<<16)
	err = cmd.Run()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() > 0 {
		return unix.Errno(cmd.ProcessState.ExitCode())
	}
	return err
}

// attachNow attaches descriptor 3 to dir, and ends with the errno.
func attachNow(dir string) {
	err := unix.MoveMount(3, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if errno, ok := err.(unix.Errno); ok {
		os.Exit(int(errno))
	}
	os.Exit(0)
}

// sharedShm copies a tmpfs that is mounted in another process's mount namespace.
func sharedShm(mntns *os.File) (*os.File, error) { return space.Clone(mntns, "/dev/shm") }

// ownedBelow is like handed, of a tmpfs that a namespace's own root has mounted.
func ownedBelow(pid int, dir string) error {
	on := filepath.Join(dir, "on")
	if err := errors.Join(os.Mkdir(on, 0o755), os.Chmod(dir, 0o755)); err != nil {
		return err
	}
	if out, err := exec.Command("nsenter", "-t", fmt.Sprint(pid), "-U", "-m", "mount", "-t", "tmpfs", "own", on).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return handed("mnt", func(f *os.File) (*os.File, error) { return space.Clone(f, on) })(pid, dir)
}
