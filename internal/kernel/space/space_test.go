package space

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/words/fault"
)

// donor is a process in namespaces of its own, mapped or not.
func donor(t *testing.T, mapped bool) int {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: namespaces are made")
	}
	c := exec.Command("sleep", "100")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP}
	if mapped {
		c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1878000000, Size: 1000}}
		c.SysProcAttr.UidMappings, c.SysProcAttr.GidMappings, c.SysProcAttr.GidMappingsEnableSetgroups = ids, ids, true
	}
	// The death of the parent is that of its thread (PR_SET_PDEATHSIG(2const)).
	runtime.LockOSThread()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		runtime.UnlockOSThread()
	})
	return c.Process.Pid
}

func space(t *testing.T, pid int, kind string) *os.File {
	t.Helper()
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// names lists a directory of a mount.
func names(t *testing.T, f *os.File, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(fd.Path(f), dir))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// pids lists the processes a proc shows.
func pids(t *testing.T, f *os.File) (out []string) {
	t.Helper()
	for _, n := range names(t, f, ".") {
		if strings.Trim(n, "0123456789") == "" {
			out = append(out, n)
		}
	}
	return out
}

// spaces notes the namespaces of all threads, to be compared.
func spaces(t *testing.T) func() {
	t.Helper()
	look := func() map[string]string {
		out := map[string]string{}
		tasks, _ := os.ReadDir("/proc/self/task")
		for _, task := range tasks {
			for _, kind := range []string{"net", "ipc", "cgroup", "mnt", "pid_for_children"} {
				if link, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/" + kind); err == nil {
					out[link] = task.Name()
				}
			}
		}
		return out
	}
	before, files := look(), len(mustRead(t, "/proc/self/fd"))
	return func() {
		t.Helper()
		foreign := func() (out []string) {
			for link, task := range look() {
				if _, known := before[link]; !known {
					out = append(out, task+" in "+link)
				}
			}
			return out
		}
		for end := time.Now().Add(time.Minute); len(foreign()) > 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // a thread that is not used again is on its way out
		}
		if list := foreign(); len(list) > 0 {
			t.Errorf("threads %v", list)
		}
		if now := len(mustRead(t, "/proc/self/fd")); now > files {
			t.Errorf("%d descriptors before, %d after", files, now)
		}
		if text, err := os.ReadFile("/proc/thread-self/children"); err == nil && strings.Count(string(text), " ") > 1 {
			t.Errorf("children are left: %s", text)
		}
	}
}

func mustRead(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestSpaces: each mount shows the other process's namespace, nosuid, nodev and
// noexec, and no thread stays there.
func TestSpaces(t *testing.T) {
	for name, mapped := range map[string]bool{"mapped": true, "unmapped": false} {
		t.Run(name, func(t *testing.T) {
			pid := donor(t, mapped)
			net, ipc, cgroup, pidns := space(t, pid, "net"), space(t, pid, "ipc"), space(t, pid, "cgroup"), space(t, pid, "pid")
			check := spaces(t)
			for range 5 {
				for _, c := range []struct {
					make func() (*os.File, error)
					look func(*os.File)
				}{
					{func() (*os.File, error) { return Sysfs(net) }, func(f *os.File) {
						if got := names(t, f, "class/net"); !slices.Equal(got, []string{"lo"}) {
							t.Errorf("devices %v", got)
						}
					}},
					{func() (*os.File, error) { return Mqueue(ipc) }, func(f *os.File) {
						if got := names(t, f, "."); len(got) != 0 {
							t.Errorf("queues %v", got)
						}
					}},
					{func() (*os.File, error) { return Cgroup2(cgroup) }, func(f *os.File) { names(t, f, ".") }},
					{func() (*os.File, error) { return Proc(pidns, "hidepid=invisible") }, func(f *os.File) {
						if got := pids(t, f); !slices.Equal(got, []string{"1"}) {
							t.Errorf("processes %v", got)
						}
					}},
				} {
					f, err := c.make()
					if err != nil {
						t.Fatal(err)
					}
					c.look(f)
					var st unix.Statfs_t
					const want = unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
					if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Flags&want != want {
						t.Errorf("flags %#x, %v", st.Flags, err)
					}
					f.Close()
				}
			}
			check()
		})
	}
}

// TestProcOfOldKernels: the way without the option pidns leads to the same.
func TestProcOfOldKernels(t *testing.T) {
	pidns := space(t, donor(t, true), "pid")
	check := spaces(t)
	for range 20 {
		begun, err := procBegunIn(pidns)
		if err != nil {
			t.Fatal(err)
		}
		f, err := configure(begun, []string{"subset=pid"})
		if err != nil {
			t.Fatal(err)
		}
		if got := pids(t, f); !slices.Equal(got, []string{"1"}) {
			t.Errorf("processes %v", got)
		}
		f.Close()
	}
	check()
}

// TestDeadPIDNamespace: both ways fail, and leave nothing.
func TestDeadPIDNamespace(t *testing.T) {
	pid := donor(t, true)
	pidns := space(t, pid, "pid")
	p, _ := os.FindProcess(pid)
	p.Kill()
	var info unix.Siginfo
	unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
	check := spaces(t)
	if f, err := Proc(pidns); err == nil {
		t.Log("the option pidns takes it: an empty proc,", len(pids(t, f)))
		f.Close()
	}
	if _, err := procBegunIn(pidns); err == nil {
		t.Error("a process was made there")
	}
	check()
}

// TestOwn: no namespace is the caller's.
func TestOwn(t *testing.T) {
	donor(t, false) // for its skip
	f, err := Proc(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !slices.Contains(pids(t, f), strconv.Itoa(os.Getpid())) {
		t.Error("this process is not there")
	}
	s, err := Sysfs(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// TestWrongKinds: a namespace of another kind is not taken for one.
func TestWrongKinds(t *testing.T) {
	pid := donor(t, false)
	net, ipc := space(t, pid, "net"), space(t, pid, "ipc")
	for name, make := range map[string]func() (*os.File, error){
		"sysfs": func() (*os.File, error) { return Sysfs(ipc) }, "mqueue": func() (*os.File, error) { return Mqueue(net) },
		"cgroup": func() (*os.File, error) { return Cgroup2(net) }, "proc": func() (*os.File, error) { return Proc(net) },
		"clone": func() (*os.File, error) { return Clone(net, "/dev/shm") },
	} {
		if _, err := make(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClone: only the tmpfs itself is shared, and links do not lead elsewhere.
func TestClone(t *testing.T) {
	pid := donor(t, true)
	mntns := space(t, pid, "mnt")
	script := `mkdir -p /tmp/in && mount -t tmpfs shm /tmp/in && echo hello > /tmp/in/file && mkdir /tmp/in/sub && ln -s in /tmp/link &&
mount --bind /tmp/in/sub /mnt && ln -s /proc/1/root/dev /tmp/in/magic && mkdir /tmp/in/below && mount -t tmpfs x /tmp/in/below && touch /tmp/in/below/x`
	set := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-U", "-m", "sh", "-c", "mount -t tmpfs t /tmp && "+script)
	if out, err := set.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	check := spaces(t)
	for range 10 {
		f, err := Clone(mntns, "/tmp/in")
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(fd.Path(f) + "/file"); string(text) != "hello\n" {
			t.Error(err)
		}
		if got := names(t, f, "below"); len(got) != 0 {
			t.Errorf("what is mounted below came along: %v", got)
		}
		f.Close()
	}
	for path, class := range map[string]fault.Class{"/tmp/link": fault.Invalid, "/tmp/in/magic": fault.Invalid, "/tmp/in/sub": fault.Invalid, "/proc": fault.Invalid,
		"/tmp/in/file": fault.NotFound, "/nosuch": fault.NotFound, "/proc/self/root": fault.Invalid} {
		if _, err := Clone(mntns, path); !fault.Is(err, class) {
			t.Errorf("%s: %v", path, err)
		}
	}
	check()
}
