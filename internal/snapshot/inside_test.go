package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What processes in a container do: everything here runs in the container.

// entry describes a file: "TYPEMODE UID:GID LINKS [SIZE or TARGET or RDEV]".
func entry(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	out := fmt.Sprintf("%06o %d:%d", st.Mode, st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		out += fmt.Sprintf(" links %d size %d", st.Nlink, st.Size)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		out += " -> " + target
	case unix.S_IFCHR, unix.S_IFBLK:
		out += fmt.Sprintf(" node %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		out += fmt.Sprintf(" at %d", st.Mtim.Sec)
	}
	return out, nil
}

// listAll describes everything below dir but the test program itself.
func listAll(dir string) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() == "who" || strings.HasPrefix(path, "usr") {
			return err
		}
		out[path], err = entry(path)
		return err
	})
	return out, err
}

// lookAll describes the tree and tries what depends on owners being right.
func lookAll() (map[string]string, error) {
	out, err := listAll(".")
	if err != nil {
		return nil, err
	}
	out["acl"] = aclOf("acl")
	out["user.note"] = attr("acl", "user.note")
	out["data of sparse"] = dataOf("sparse")
	out["open null"] = name(openNode("null"))
	for _, prog := range []string{"plain", "setuid", "setuid33", "caps"} {
		out["run "+prog] = run("/bin/" + prog + "/who")
	}
	return out, nil
}

// run executes a copy of the test program as user 1000, and says what it became.
func run(path string) string {
	cmd := exec.Command(path)
	cmd.Env = []string{partEnv + "=" + partWho}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr // there is no /dev/null
	got, err := cmd.Output()
	return fmt.Sprint(string(got), " ", name(err))
}

// aclOf prints the entries of an ACL with an id, as "u1000:6". The buffer has
// room for whole entries: Linux 6.1 seems to take its size for the attribute's,
// and leaves the ids as they are on disk when it cannot be one.
func aclOf(path string) string {
	buf := make([]byte, 4+8*31)
	n, err := unix.Lgetxattr(path, "system.posix_acl_access", buf)
	if err != nil {
		return name(err)
	}
	var out []string
	for e := buf[4:n]; len(e) >= 8; e = e[8:] {
		perm, id := binary.LittleEndian.Uint16(e[2:]), binary.LittleEndian.Uint32(e[4:])
		switch binary.LittleEndian.Uint16(e) {
		case 2:
			out = append(out, fmt.Sprintf("u%d:%d", id, perm))
		case 8:
			out = append(out, fmt.Sprintf("g%d:%d", id, perm))
		}
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}

func attr(path, key string) string {
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(path, key, buf)
	if err != nil {
		return name(err)
	}
	return string(buf[:n])
}

// dataOf prints the last bytes of a file.
func dataOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return name(err)
	}
	defer f.Close()
	f.Seek(-4, io.SeekEnd)
	b, err := io.ReadAll(f)
	return fmt.Sprint(string(b), " ", name(err))
}

// workInside changes the tree as root of the container, and returns what came
// of each change.
func workInside() (map[string]string, error) {
	out := map[string]string{}
	step := func(what string, err error) { out[what] = name(err) }
	step("write", os.WriteFile("new", []byte("new"), 0o644))
	step("mkdir", os.Mkdir("newdir", 0o755))
	step("chown new", os.Chown("new", 33, 44))
	step("chown lower", os.Chown("plain", 5, 6))
	step("chown lower dir", os.Chown("dir", 7, 8))
	step("chown unmapped", os.Chown("new", 70000, 0))
	step("chmod setuid", os.Chmod("new", 0o755|os.ModeSetuid))
	step("link lower", os.Link("hard1", "hard3"))
	step("append lower", appendTo("hard1"))
	step("rename lower", os.Rename("other", "renamed"))
	step("unlink lower", os.Remove("lowlink"))
	step("rm -r lower", os.RemoveAll("tree"))
	step("mkdir again", os.Mkdir("tree", 0o700))
	step("rm -r and leave", os.RemoveAll("opaque"))
	step("exchange", unix.Renameat2(unix.AT_FDCWD, "new", unix.AT_FDCWD, "owned", unix.RENAME_EXCHANGE))
	step("mknod whiteout", unix.Mknod("fake", unix.S_IFCHR|0o600, 0))
	step("mknod null", unix.Mknod("null2", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	step("set caps", unix.Setxattr("newdir", "user.x", []byte("y"), 0))
	step("set trusted", unix.Setxattr("newdir", "trusted.overlay.opaque", []byte("y"), 0))
	step("file caps", fileCaps("capped"))
	step("set acl", unix.Setxattr("newdir", "system.posix_acl_access", acl(1000, 7), 0))
	out["acl newdir"] = aclOf("newdir")
	if err := os.Rename("dir", "dir2"); err != nil {
		out["rename lower dir"] = name(err)
	}
	left, err := os.ReadDir("tree")
	out["left in tree"] = fmt.Sprint(len(left), " ", name(err))
	workMore(out)
	return out, nil
}

// workMore is what becomes of files as they are copied up, and of programs.
func workMore(out map[string]string) {
	step := func(what string, err error) { out[what] = name(err) }
	step("copy up hard link", os.Chmod("hard2", 0o600)) // hard1 is another file by now: the index is off (overlayfs.rst)
	other, err := os.ReadFile("hard2")
	out["other name"] = fmt.Sprint(len(other), " ", name(err))
	os.Mkdir("moved", 0o700)
	os.WriteFile("moved/file", []byte("moved"), 0o600)
	step("rename new dir", os.Rename("moved", "moved2"))
	moved, err := os.ReadFile("moved2/file")
	out["file in renamed dir"] = fmt.Sprint(string(moved), " ", name(err))
	step("copy up acl", appendTo("acl"))
	out["acl after"], out["user.note after"] = aclOf("acl"), attr("acl", "user.note")
	step("inherit acl", os.WriteFile("defacl/new", nil, 0o666))
	out["acl inherited"] = aclOf("defacl/new")
	step("copy up caps", errors.Join(os.Chmod("bin/caps/who", 0o711), unix.Chmod("bin/setuid/who", 0o4711)))
	out["run caps after copy-up"], out["run setuid after copy-up"] = run("/bin/caps/who"), run("/bin/setuid/who")
	step("install caps", errors.Join(install("newcaps"), unix.Setxattr("newcaps/who", "security.capability", rawCap(), 0)))
	out["run new caps"] = run("/newcaps/who")
	step("install setuid", errors.Join(install("newsetuid"), os.Chown("newsetuid/who", 33, 33), os.Chmod("newsetuid/who", 0o755|os.ModeSetuid)))
	out["run new setuid"] = run("/newsetuid/who")
	os.Chown("newcaps/who", 1, 1)
	out["chown drops caps"] = attr("newcaps/who", "security.capability")
}

// install copies the test program into a new directory.
func install(dir string) error {
	in, err := os.Open("bin/plain/who")
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(dir+"/who", os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), os.Chmod(dir+"/who", 0o755))
}

// fillInside writes until there is no room.
func fillInside() (map[string]string, error) {
	out := map[string]string{}
	f, err := os.Create("fill")
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	out["write"] = name(err)
	kept, err := os.ReadFile("renamed")
	out["kept"] = fmt.Sprint(string(kept), " ", name(err))
	os.Chown("bin/setuid33/who", 0, 0) // copied up, or not: nothing between
	os.Chown("bin/setuid33/who", 33, 33)
	unix.Chmod("bin/setuid33/who", 0o4755)
	out["run setuid33"] = run("/bin/setuid33/who")
	return out, nil
}

func appendTo(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	f.Close()
	return err
}

func fileCaps(path string) error {
	if err := os.WriteFile(path, nil, 0o755); err != nil {
		return err
	}
	return unix.Setxattr(path, "security.capability", rawCap(), 0)
}

// rawCap is cap_net_raw+ep, revision 2.
func rawCap() []byte {
	b := make([]byte, 20)
	binary.LittleEndian.PutUint32(b, 0x02000001)
	binary.LittleEndian.PutUint32(b[4:], 1<<unix.CAP_NET_RAW)
	return b
}

// acl is user::rwx, user:id:perm, group::r-x, mask::rwx, other::r-x.
func acl(id uint32, perm uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 7, 1<<32 - 1}, {2, perm, id}, {4, 5, 1<<32 - 1}, {0x10, 7, 1<<32 - 1}, {0x20, 5, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// openNode opens a device node that lies in a layer.
func openNode(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err
}

// useHost looks at the built-in image and runs a program of the host in it.
func useHost() (map[string]string, error) {
	out := map[string]string{}
	for _, path := range []string{"/tmp", "/root", "/usr", "/usr/bin/env", "/etc", "/home", "/var/lib"} {
		e, err := entry(path)
		if err != nil {
			return nil, err
		}
		out[path] = strings.Join(strings.Fields(e)[:2], " ")
	}
	// Root in the container with all capabilities must not get at the host's
	// files by lifting the flags of the mount.
	unix.Mount("", "/usr", "", unix.MS_REMOUNT|unix.MS_BIND, "")
	unix.MountSetattr(unix.AT_FDCWD, "/usr", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
	out["write usr"] = name(os.WriteFile("/usr/fief-test-must-not-exist", nil, 0o644))
	out["chmod usr"] = name(os.Chmod("/usr/bin/env", 0o755))
	out["write etc"] = name(os.WriteFile("/etc/new", nil, 0o644))
	_, err := os.Stat("/etc/machine-id")
	out["host's etc"] = name(err)
	cmd := exec.Command("/bin/sh", "-c", "cd /tmp && echo hello > x && cat x && id -un")
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	said, err := cmd.Output()
	out["sh"] = strings.Join(strings.Fields(string(said)), " ") + " " + name(err)
	return out, nil
}
