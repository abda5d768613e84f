package foreign

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt"
	"fief/internal/kernel/sysx"
	"fief/internal/words/errand"
	"fief/internal/words/fault"
)

// Carry is what the process does that a Caller has started, in a mount namespace
// of its own: it puts everything in its place there and becomes the runtime.
// args are those behind Argument. It returns only on failure, which it has
// reported then.
func Carry(args []string) int {
	err := errors.New("called by hand")
	if len(args) == 2 {
		var files int
		if files, err = strconv.Atoi(args[1]); err == nil {
			err = carry(args[0], files)
		}
	}
	unix.Write(reportFile, []byte(err.Error()))
	return 125
}

func carry(name string, files int) error {
	for fd := errandFile; fd < firstFile+files; fd++ {
		unix.CloseOnExec(fd)
	}
	text, err := os.ReadFile("/proc/self/fd/" + strconv.Itoa(errandFile))
	if err != nil {
		return err
	}
	e, err := errand.Decode(text, files)
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := enter(e.Groups); err != nil {
		return err
	}
	// As slaves: what the host mounts or unmounts meanwhile happens here, too, and
	// nothing that is mounted here is seen there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return sysx.Fault("make slaves of", "all mounts", err)
	}
	if e.View != "" {
		if err := unix.Mount(e.View, "/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return sysx.Fault("bind", e.View, err)
		}
	}
	if err := furnish(e); err != nil {
		return err
	}
	if err := emptyInput(); err != nil {
		return err
	}
	// Signals that this process was started without would be ignored by the
	// program as well: execve(2) keeps what is ignored, and resets what is caught.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	err = syscall.Exec(e.Runtime, commandLine(e, name), []string{"PATH=" + os.Getenv("PATH")})
	return fault.Wrap(fault.Invalid, "execute", e.Runtime, err, "")
}

// emptyInput puts a pipe that nobody writes to in the place of a device as
// standard input. crun and runsc give the streams to the container's user
// (crun 1.8, maybe_chown_std_streams): the host's /dev/null would be his, to be
// closed to everybody else with chmod.
func emptyInput() error {
	var st unix.Stat_t
	if err := unix.Fstat(0, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return err
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return sysx.Fault("make", "standard input", err)
	}
	unix.Close(ends[1])
	return sysx.Fault("use", "standard input", unix.Dup3(ends[0], 0, 0))
}

// enter moves this process into groups. A descriptor is a group's directory or
// its cgroup.procs, open for writing.
func enter(groups []int32) error {
	for _, slot := range groups {
		fd := firstFile + int(slot)
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			fd, err = unix.Openat(fd, "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		}
		if err == nil {
			_, err = unix.Write(fd, []byte("0"))
		}
		if err != nil {
			return fault.Wrap(fault.Internal, "enter", "the container's cgroup", err, "")
		}
	}
	return nil
}

// furnish covers Place and puts there what the runtime is told to find.
func furnish(e *errand.Errand) error {
	dir, err := os.Open(e.Dir) // before it is covered, should it be below
	if err != nil {
		return err
	}
	defer dir.Close()
	// Everybody may walk through, as the container's root is a user of the host.
	if err := unix.Mount("fief", e.Place, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0711"); err != nil {
		return sysx.Fault("mount tmpfs on", e.Place, err)
	}
	if err := bind(dir, filepath.Join(e.Place, errand.RunDir)); err != nil {
		return err
	}
	// runc starts what enters a container in the container's root directory.
	if err := os.MkdirAll(filepath.Join(e.Place, errand.RootDir), 0o711); err != nil {
		return err
	}
	for _, m := range e.Mounts {
		if err := put(e.Place, m); err != nil {
			return err
		}
	}
	name := errand.Config
	if e.Verb == errand.Exec {
		name = errand.Process
	}
	return os.WriteFile(filepath.Join(e.Place, name), e.JSON, 0o600)
}

// bind shows an open file or directory at path.
func bind(f *os.File, path string) error {
	if err := makePoint(f, path); err != nil {
		return err
	}
	return sysx.Fault("bind", path, unix.Mount("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), path, "", unix.MS_BIND, ""))
}

// put attaches a mount or binds a namespace.
func put(place string, m errand.Mount) error {
	f := os.NewFile(uintptr(firstFile+int(m.Slot)), m.Path)
	defer f.Close()
	if below, ok := strings.CutPrefix(m.Path, errand.RootDir+"/"); ok {
		return putBelow(filepath.Join(place, errand.RootDir), below, f)
	}
	path := filepath.Join(place, m.Path)
	if strings.HasPrefix(m.Path, errand.SpaceDir+"/") {
		return bind(f, path)
	}
	if err := makePoint(f, path); err != nil {
		return err
	}
	return mnt.AttachPath(f, path)
}

// putBelow attaches a mount inside the root file system, whose symbolic links
// lead nowhere else (openat2(2), RESOLVE_IN_ROOT).
func putBelow(root, target string, f *os.File) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return sysx.Fault("open", root, err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, target, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return sysx.Fault("open in the container", target, err)
	}
	point := os.NewFile(uintptr(fd), target)
	defer point.Close()
	return mnt.Attach(f, point)
}

// makePoint makes a mount point for what is mounted: a directory or a file.
func makePoint(f *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return sysx.Fault("look at", path, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return os.MkdirAll(path, 0o711)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return err
	}
	point, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return point.Close()
}

// commandLine is the call in the words that runc, crun and runsc share.
func commandLine(e *errand.Errand, name string) []string {
	run := filepath.Join(e.Place, errand.RunDir, name)
	words := append([]string{e.Runtime}, e.Args...)
	words = append(words, "--root", e.Root, "--log", run+logEnd, "--log-format", "json", e.Verb.String())
	switch e.Verb {
	case errand.Create:
		words = append(words, "--bundle", e.Place, "--pid-file", run+pidEnd)
	case errand.Exec:
		words = append(words, "--detach", "--process", filepath.Join(e.Place, errand.Process), "--pid-file", run+pidEnd)
	case errand.Delete:
		words = append(words, "--force")
	}
	if e.TTY {
		words = append(words, "--console-socket", run+socketEnd)
	}
	return append(words, e.ID)
}
