package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mounted adds a mount to a spec.
func mounted(m specs.Mount) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }
}

// hostDir makes a directory beside the bundle, with a tmpfs below it, and
// removes both.
func (b *bench) hostDir() string {
	b.t.Helper()
	dir, other := filepath.Join(b.dir, "host"), filepath.Join(b.dir, "other")
	for _, d := range []string{dir, dir + "/sub", other} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	// Private and without options, whatever the machine's mounts are (Debian 13's /tmp is a
	// tmpfs with nosuid and nodev); and no tmpfs of its own, which Linux 6.1 cannot idmap.
	for _, err := range []error{
		unix.Mount(dir, dir, "", unix.MS_BIND, ""), unix.Mount("", dir, "", unix.MS_PRIVATE, ""),
		unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RELATIME, ""),
		unix.Mount(other, dir+"/sub", "", unix.MS_BIND, ""), unix.Mount("", dir+"/sub", "", unix.MS_PRIVATE, ""),
		unix.Mount("", dir+"/sub", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_RELATIME, ""),
	} {
		if err != nil {
			b.t.Fatal(err)
		}
	}
	b.t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// options prints the options of the mounts below /m, by /proc/self/mountinfo.
const options = "while read a b c d dir opt rest; do case $dir in /m|/m/*) echo ${dir#/m}=$opt ${rest%%- *};; esac; done < /proc/self/mountinfo"

// TestMountOptions: every option of the spec's table that is not a file
// system's, on a bind of a tree and on a new file system.
func TestMountOptions(t *testing.T) {
	b := newBench(t)
	dir := b.hostDir()
	for given, want := range map[string]string{
		"":                   "=rw,relatime /sub=rw,nosuid,relatime",
		"ro":                 "=ro,relatime /sub=rw,nosuid,relatime",
		"rro":                "=ro,relatime /sub=ro,nosuid,relatime",
		"rro,rrw":            "=rw,relatime /sub=rw,nosuid,relatime",
		"ro,rw":              "=rw,relatime /sub=rw,nosuid,relatime",
		"nosuid,nodev":       "=rw,nosuid,nodev,relatime /sub=rw,nosuid,relatime",
		"rnosuid,rnodev":     "=rw,nosuid,nodev,relatime /sub=rw,nosuid,nodev,relatime",
		"rsuid,dev":          "=rw,relatime /sub=rw,relatime",
		"rnoexec":            "=rw,noexec,relatime /sub=rw,nosuid,noexec,relatime",
		"rnoexec,rexec,rdev": "=rw,relatime /sub=rw,nosuid,relatime",
		"noatime":            "=rw,noatime /sub=rw,nosuid,relatime",
		"rnoatime":           "=rw,noatime /sub=rw,nosuid,noatime",
		"rstrictatime":       "=rw /sub=rw,nosuid",
		"rstrictatime,ratime,rrelatime,rnostrictatime,norelatime,rnorelatime,atime,relatime,nostrictatime": "=rw,relatime /sub=rw,nosuid,relatime",
		"rnodiratime":             "=rw,nodiratime,relatime /sub=rw,nosuid,nodiratime,relatime",
		"rnodiratime,diratime":    "=rw,nodiratime,relatime /sub=rw,nosuid,nodiratime,relatime",
		"rnosymfollow":            "=rw,relatime,nosymfollow /sub=rw,nosuid,relatime,nosymfollow",
		"rnosymfollow,rsymfollow": "=rw,relatime /sub=rw,nosuid,relatime",
		"silent,loud,async,defaults,nomand,noiversion,rdiratime": "=rw,relatime /sub=rw,nosuid,relatime",
		"slave":       "=rw,relatime /sub=rw,nosuid,relatime",
		"rshared":     "=rw,relatime shared:N /sub=rw,nosuid,relatime shared:N",
		"shared":      "=rw,relatime shared:N /sub=rw,nosuid,relatime",
		"unbindable":  "=rw,relatime unbindable /sub=rw,nosuid,relatime",
		"runbindable": "=rw,relatime unbindable /sub=rw,nosuid,relatime unbindable",
	} {
		list := append([]string{"rbind"}, strings.FieldsFunc(given, func(r rune) bool { return r == ',' })...)
		b.sees(want, options+" | while read a b; do case $b in shared:*) b=shared:N;; esac; echo $a $b; done",
			mounted(specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: list}))
	}
	b.sees("=rw,relatime", options, mounted(specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"bind"}}))
	b.sees("ro,nosuid,noatime tmpfs rw,sync,dirsync,size=64k,mode=700",
		"while read a b c d dir opt rest; do case $dir in /m) echo $opt ${rest#*- }; esac; done < /proc/self/mountinfo | while read o t s x; do x=${x%,uid*}; echo $o $t ${x%,inode*}; done",
		mounted(specs.Mount{Destination: "/m", Type: "tmpfs", Source: "src", Options: []string{"rro", "rnosuid", "noatime", "sync", "dirsync", "size=64k", "mode=700"}}))
	b.sees("=rw,nosuid,relatime", options, mounted(specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"bind", "nosuid", "mode=755", "size=1k"}}))
	b.refuses("with option nosiud", mounted(specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"bind", "mode=755", "nosiud"}}))
	b.refuses("with option context=x", mounted(specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"bind", "context=x"}}))
	b.refuses("with option sync", mounted(specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"bind", "sync"}}))
	b.refuses("no mount before it", mounted(specs.Mount{Destination: "/m", Type: "tmpfs", Options: []string{"remount"}}))
	b.refuses("without a type", mounted(specs.Mount{Destination: "/m"}))
	b.refuses("nosuchfs", mounted(specs.Mount{Destination: "/m", Type: "nosuchfs"}))
}

// TestRemount: a mount can be given other flags by a later entry of the list, as
// runc and crun have it; what is not named stays, what lies below stays unless all
// are asked for, and the host's mount that was bound is not touched.
func TestRemount(t *testing.T) {
	b := newBench(t)
	dir := b.hostDir()
	bound := specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"rbind", "nosuid"}}
	for given, want := range map[string]string{
		"bind,remount,ro":           "=ro,nosuid,relatime /sub=rw,nosuid,relatime",
		"remount,ro,noexec":         "=ro,nosuid,noexec,relatime /sub=rw,nosuid,relatime",
		"rbind,remount,rro,noatime": "=ro,nosuid,noatime /sub=ro,nosuid,relatime",
		"bind,remount,suid":         "=rw,relatime /sub=rw,nosuid,relatime",
	} {
		b.sees(want, options, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, bound, specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: strings.Split(given, ",")})
		})
	}
	b.sees("wrote", "touch /m/x 2>/dev/null && echo bad; touch /dev/x 2>/dev/null && echo bad; test -c /dev/null && echo wrote > /n/x; cat /n/x", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/m", Type: "tmpfs"}, specs.Mount{Destination: "/n", Type: "tmpfs"},
			specs.Mount{Destination: "/m", Options: []string{"remount", "ro"}}, specs.Mount{Destination: "/dev", Options: []string{"remount", "ro"}})
	})
	// A link in the way leads to a place in the root, which is no mount.
	if err := os.Symlink("/../../../../..", filepath.Join(b.bundle, "rootfs", "away")); err != nil {
		t.Fatal(err)
	}
	b.refuses("change mount on /away/proc", func(s *specs.Spec) {
		s.Linux.MaskedPaths = nil
		s.Mounts = append([]specs.Mount{{Destination: "/away/proc", Type: "tmpfs"}}, s.Mounts...)
		s.Mounts[1].Destination = "/away"
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/away/proc", Options: []string{"remount", "ro"}})
	})
	if err := os.WriteFile(filepath.Join(dir, "free"), nil, 0o600); err != nil {
		t.Errorf("the host's directory: %v", err)
	}
}

// TestBindsOfAll: files, devices, sockets and pipes can be bound, and a bind's
// target is what its source is.
func TestBindsOfAll(t *testing.T) {
	b := newBench(t)
	dir := b.hostDir()
	if err := os.WriteFile(dir+"/file", []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(dir+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.sees("textregular file fifo socket character special file 1:3", "cat /new/file; for i in file fifo socket; do stat -c %F /new/$i; done; echo x > /new/null && stat -c '%F %t:%T' /new/null", func(s *specs.Spec) {
		for _, name := range []string{"file", "fifo", "socket"} {
			mounted(specs.Mount{Destination: "/new/" + name, Type: "bind", Source: dir + "/" + name, Options: []string{"rbind"}})(s)
		}
		mounted(specs.Mount{Destination: "/new/null", Source: "/dev/null", Options: []string{"bind"}})(s)
	})
}

// TestIdmap: the maps of a mount, or the container's, say whose files on disk are.
func TestIdmap(t *testing.T) {
	b := newBench(t)
	dir := b.hostDir()
	for _, d := range []string{dir, dir + "/sub"} {
		if err := os.WriteFile(d+"/file", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		os.Chown(d+"/file", 7, 8)
	}
	const look = "stat -c %u:%g /m/file /m/sub/file; touch /m/new 2>/dev/null; stat -c %u:%g /m/new 2>/dev/null || :"
	bind := func(option string, ids ...specs.LinuxIDMapping) func(*specs.Spec) {
		return mounted(specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"rbind", option}, UIDMappings: ids, GIDMappings: ids})
	}
	own := func() string {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(dir+"/new", &st); err != nil {
			return "none"
		}
		os.Remove(dir + "/new")
		if st.Uid == 0 && st.Gid == 0 {
			return "root"
		}
		return "other"
	}
	b.sees("65534:65534 65534:65534", look, bind("rw"))
	b.sees("7:8 65534:65534 0:0", look, bind("idmap"))
	if who := own(); who != "root" {
		t.Errorf("the file made by the container is %s's", who)
	}
	b.sees("7:8 7:8 0:0", look, bind("ridmap"))
	own()
	shifted := specs.LinuxIDMapping{ContainerID: 0, HostID: 524288 + 100, Size: 1000}
	b.sees("107:108 107:108", look, bind("ridmap", shifted))
	b.sees("107:108 65534:65534", look, bind("rw", shifted))
	b.refuses("go together", func(s *specs.Spec) {
		mounted(specs.Mount{Destination: "/m", Type: "bind", Source: dir, UIDMappings: []specs.LinuxIDMapping{shifted}})(s)
	})
	b.refuses("there is none", func(s *specs.Spec) {
		bind("idmap")(s)
		s.Linux.Namespaces = s.Linux.Namespaces[1:]
		s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	})
	b.refuses("only binds are mapped", mounted(specs.Mount{Destination: "/m", Type: "tmpfs", Options: []string{"idmap"}}))
}

// TestCopyUp: a tmpfs with tmpcopyup begins with what it covers, and writes stay
// in it.
func TestCopyUp(t *testing.T) {
	b := newBench(t)
	root := filepath.Join(b.bundle, "rootfs", "var", "lib")
	if err := os.MkdirAll(root+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/dir/file", []byte("text"), 0o4751); err != nil {
		t.Fatal(err)
	}
	os.Symlink("/etc/nothing", root+"/link")
	unix.Mkfifo(root+"/fifo", 0o600)
	b.own(filepath.Join(b.bundle, "rootfs", "var"))
	for _, name := range []string{"", "/dir", "/dir/file", "/link", "/fifo"} {
		os.Lchown(root+name, 524288+5, 524288+6)
	}
	os.Chmod(root+"/dir/file", 0o751|os.ModeSetuid)
	long := []unix.Timespec{{Sec: 1000}, {Sec: 1000}}
	unix.UtimesNanoAt(unix.AT_FDCWD, root+"/dir/file", long, 0)
	tmpfs := func(options ...string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			mounted(specs.Mount{Destination: "/var/lib", Type: "tmpfs", Source: "tmpfs", Options: append(options, "tmpcopyup")})(s)
			for _, set := range []*[]string{&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Permitted, &s.Process.Capabilities.Effective} {
				*set = []string{"CAP_DAC_OVERRIDE"}
			}
		}
	}
	b.sees("/var/lib=5:6:755:directory dir=5:6:755:directory dir/file=5:6:4751:regular file link=5:6:777:symbolic link fifo=5:6:600:fifo text 1000 /etc/nothing tmpfs more",
		"cd /var/lib; stat -c %n=%u:%g:%a:%F /var/lib dir dir/file link fifo; cat dir/file; echo; stat -c %Y dir/file; readlink link; stat -f -c %T .; echo more > dir/file; cat dir/file",
		tmpfs("size=1m"))
	if text, err := os.ReadFile(root + "/dir/file"); string(text) != "text" {
		t.Errorf("the root file system has %q, %v", text, err)
	}
	b.sees("ro 9", "touch /var/lib/x 2>/dev/null || echo ro; stat -c %u /new", func(s *specs.Spec) {
		tmpfs("ro")(s)
		mounted(specs.Mount{Destination: "/new", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "uid=9"}})(s)
		s.Root.Readonly = false
	})
	b.refuses("not in the root file system", func(s *specs.Spec) {
		mounted(specs.Mount{Destination: "/var", Type: "tmpfs", Source: "tmpfs"})(s)
		tmpfs()(s)
	})
	b.refuses("it is no tmpfs", mounted(specs.Mount{Destination: "/m", Type: "ramfs", Options: []string{"tmpcopyup"}}))
	b.refuses("no space left", tmpfs("nr_inodes=2"))
}

// TestRootPropagation: as the root mount of the container says.
func TestRootPropagation(t *testing.T) {
	b := newBench(t)
	for given, want := range map[string]string{"": "", "private": "", "rprivate": "", "shared": "shared:N", "rshared": "shared:N", "unbindable": "unbindable", "runbindable": "unbindable"} {
		b.sees(strings.TrimSpace("is "+want), "while read a b c d dir opt rest; do if test $dir = /; then rest=${rest%%- *}; case $rest in shared:*) rest=shared:N;; esac; echo is $rest; fi; done < /proc/self/mountinfo",
			func(s *specs.Spec) { s.Linux.RootfsPropagation = given })
	}
	// A slave of the host: what is mounted on the shared root there is seen here.
	dir := b.hostDir()
	if err := unix.Mount("", dir+"/sub", "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	b.sees("master:N", options+" | while read a b; do case $a,$b in /sub=*,master:*) echo master:N;; esac; done", func(s *specs.Spec) {
		s.Linux.RootfsPropagation = "rslave"
		mounted(specs.Mount{Destination: "/m", Type: "bind", Source: dir, Options: []string{"rbind", "rslave"}})(s)
	})
	b.refuses("rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "odd" })
}

// TestDevices: devices are bound in a user namespace and made elsewhere, with
// the mode and owner asked for; another node in the place is an error.
func TestDevices(t *testing.T) {
	b := newBench(t)
	mode, uid, gid := os.FileMode(0o640), uint32(3), uint32(4)
	devices := func(list ...specs.LinuxDevice) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Devices = list }
	}
	host := func(list ...specs.LinuxDevice) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Devices = list
			s.Linux.Namespaces = s.Linux.Namespaces[1:]
			s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
			s.Root.Readonly = false
		}
	}
	const look = "stat -c '%F:%t:%T:%a:%u:%g' "
	b.sees("fifo:0:0:640:3:4 character special file:1:5", look+"/dev/p; stat -c '%F:%t:%T' /dev/zero", devices(
		specs.LinuxDevice{Path: "/dev/p", Type: "p", FileMode: &mode, UID: &uid, GID: &gid}, specs.LinuxDevice{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5}))
	b.sees("character special file:1:5:640:3:4 character special file:1:7:666:0:0 block special file:7:0:640:0:0 fifo:0:0:666:0:0", look+"/dev/my/zero /full /dev/loop /p",
		host(specs.LinuxDevice{Path: "/dev/my/zero", Type: "u", Major: 1, Minor: 5, FileMode: &mode, UID: &uid, GID: &gid},
			specs.LinuxDevice{Path: "/full", Type: "c", Major: 1, Minor: 7}, specs.LinuxDevice{Path: "/dev/loop", Type: "b", Major: 7, Minor: 0, FileMode: &mode},
			specs.LinuxDevice{Path: "/p", Type: "p"}))
	b.refuses("no such device", devices(specs.LinuxDevice{Path: "/dev/zero", Type: "c", Major: 1, Minor: 6}))
	b.refuses("no such device", host(specs.LinuxDevice{Path: "/bin/busybox", Type: "c", Major: 1, Minor: 5}))
	b.refuses("unknown type", devices(specs.LinuxDevice{Path: "/dev/x", Type: "x"}))
	b.sees("/proc/self/fd /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 pts/ptmx", "cd /dev; for i in fd stdin stdout stderr ptmx; do readlink $i; done", func(*specs.Spec) {})
}

// TestCgroupMounts: both names give the hierarchy of the container's cgroup
// namespace.
func TestCgroupMounts(t *testing.T) {
	b := newBench(t)
	for _, kind := range []string{"cgroup", "cgroup2"} {
		b.sees("cgroup2 cgroup.procs", "while read a b c d dir opt rest; do case $dir in /sys/fs/cgroup) set -- ${rest#*- }; echo $1;; esac; done < /proc/self/mountinfo; cd /sys/fs/cgroup; ls cgroup.procs",
			func(s *specs.Spec) { s.Mounts[6].Type = kind })
	}
}

// TestPaths: masked paths are empty or /dev/null, and read-only ones are, with
// all below; missing ones are left alone.
func TestPaths(t *testing.T) {
	b := newBench(t)
	b.sees("0 1:3 ro", "ls /proc/sys/kernel | grep -c . ; stat -c %t:%T /proc/version; echo x 2>/dev/null > /proc/sys/net/ipv4/ip_forward || echo ro", func(s *specs.Spec) {
		s.Linux.MaskedPaths = []string{"/proc/sys/kernel", "/proc/version", "/nosuch"}
		s.Linux.ReadonlyPaths = []string{"/proc/sys", "/nosuch"}
	})
}
