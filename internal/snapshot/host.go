package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/mnt"
	"fief/internal/kernel/sysx"
	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
)

// node is a file of a built-in layer: a directory, a symbolic link when target
// is set, a file when text is.
type node struct {
	path   string // relative, parents before children
	mode   uint32
	target string
	text   string
}

// skeleton is the root around the host's /usr: what programs expect to find,
// and nothing of the host's /etc, /home or /var.
var skeleton = []node{
	{path: "dev", mode: 0o755}, {path: "proc", mode: 0o555}, {path: "sys", mode: 0o555},
	{path: "run", mode: 0o755}, {path: "usr", mode: 0o755}, {path: "tmp", mode: 0o1777},
	{path: "root", mode: 0o700}, {path: "home", mode: 0o755}, {path: "mnt", mode: 0o755},
	{path: "media", mode: 0o755}, {path: "opt", mode: 0o755}, {path: "srv", mode: 0o755},
	{path: "var", mode: 0o755}, {path: "var/cache", mode: 0o755}, {path: "var/lib", mode: 0o755},
	{path: "var/log", mode: 0o755}, {path: "var/spool", mode: 0o755}, {path: "var/tmp", mode: 0o1777},
	{path: "var/mail", mode: 0o755}, {path: "var/run", target: "../run"}, {path: "var/lock", target: "../run/lock"},
	{path: "run/lock", mode: 0o1777}, {path: "etc", mode: 0o755}, {path: "etc/alternatives", mode: 0o755},
	{path: "etc/passwd", mode: 0o644, text: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"},
	{path: "etc/group", mode: 0o644, text: "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"},
	{path: "etc/shadow", mode: 0o640, text: "root:*:::::::\nnobody:*:::::::\n"},
	{path: "etc/nsswitch.conf", mode: 0o644, text: "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n"},
	{path: "etc/hosts", mode: 0o644, text: "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"},
	{path: "etc/hostname", mode: 0o644, text: "localhost\n"},
	{path: "etc/resolv.conf", mode: 0o644, text: "# no name server\n"},
	{path: "etc/shells", mode: 0o644, text: "/bin/sh\n/bin/bash\n"},
	{path: "etc/os-release", target: "../usr/lib/os-release"},
	{path: "etc/mtab", target: "../proc/self/mounts"},
}

// merged are the directories that are links into /usr on most hosts, and
// directories of their own on others.
var merged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// hostLayer makes sure that the skeleton for this host is in the store, and
// returns its directory below layers/.
func (s *Store) hostLayer() (string, error) { return s.builtin("host", hostNodes) }

func hostNodes() []node {
	nodes := slices.Clone(skeleton)
	for _, name := range merged {
		target, err := os.Readlink("/" + name)
		switch {
		case err == nil:
			nodes = append(nodes, node{path: name, target: strings.TrimPrefix(target, "/")})
		case errors.Is(err, unix.EINVAL): // no link but a directory
			nodes = append(nodes, node{path: name, mode: 0o755})
		}
	}
	return append(nodes, alternatives("/etc/alternatives")...)
}

// alternatives repeats the links with which Debian chooses between programs
// of /usr (update-alternatives(1)): without them awk and others are dangling
// links. Those that lead elsewhere are not repeated.
func alternatives(dir string) []node {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // a host without alternatives
	}
	var out []node
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil && strings.HasPrefix(target, "/usr/") {
			out = append(out, node{path: "etc/alternatives/" + e.Name(), target: target})
		}
	}
	return out
}

// builtin makes sure that a layer of these nodes is in the store and returns
// its directory below layers/. The name contains a hash of the content: when
// that has changed, at the next start, there is another layer, and containers
// keep theirs. nodes nil is an empty layer.
func (s *Store) builtin(name string, nodes func() []node) (string, error) {
	s.mu.Lock()
	layer, ok := s.built[name]
	s.mu.Unlock()
	if ok {
		return layer, nil
	}
	var list []node
	if nodes != nil {
		list = nodes()
	}
	layer = fmt.Sprintf("%s-%x", name, sha256.Sum256(fmt.Append(nil, list)))[:len(name)+17]
	if err := s.makeBuiltin(layer, list); err != nil {
		return "", err
	}
	s.mu.Lock()
	s.built[name] = layer
	s.mu.Unlock()
	return layer, nil
}

func (s *Store) makeBuiltin(layer string, nodes []node) error {
	if ok, err := at.Exists(s.layers, layer); ok || err != nil {
		return err
	}
	b, err := s.newBuilding(layer)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err := n.create(b.Dir); err != nil {
			b.Abort()
			return err
		}
	}
	return b.Commit()
}

func (n node) create(dir *os.File) error {
	if n.target != "" {
		return sysx.Fault("make link", n.path, unix.Symlinkat(n.target, int(dir.Fd()), n.path))
	}
	if n.text == "" {
		return at.MakeDir(dir, n.path, n.mode)
	}
	f, err := unix.Openat(int(dir.Fd()), n.path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, n.mode)
	if err != nil {
		return sysx.Fault("make file", n.path, err)
	}
	file := os.NewFile(uintptr(f), n.path)
	defer file.Close()
	if _, err := file.WriteString(n.text); err != nil {
		return sysx.Fault("write", n.path, err)
	}
	return sysx.Fault("set mode of", n.path, unix.Fchmod(f, n.mode))
}

// addHost adds the host's /usr, and what is not merged into it, read-only.
func (m *Mapped) addHost(root *Root) error {
	for _, name := range append([]string{"usr"}, merged...) {
		st, err := os.Lstat("/" + name)
		if err != nil || !st.IsDir() {
			continue
		}
		mount, why, err := m.hostDir("/" + name)
		if err != nil {
			return err
		}
		root.Extra = append(root.Extra, ExtraMount{"/" + name, mount})
		if why != "" && root.Why == "" {
			root.Why = why
		}
	}
	return nil
}

// hostDir makes a read-only mount of a directory of the host, without what is
// mounted below it. Root's files appear as the container root's; where the file
// system cannot do that they appear as nobody's, and why says so.
//
// Danger: what only root may read below /usr, the container's root may read.
//
// The directory is the layer of an overlay without an upper, which nobody can
// make writable. A plain read-only mount would not do: a container with
// CAP_SYS_ADMIN may remount it writable, as flags set from outside are locked
// only in mounts that a namespace has inherited (mount_namespaces(7)), and
// through the idmapped mount its root would own the host's files.
func (m *Mapped) hostDir(path string) (mount *os.File, why string, err error) {
	tree, why, err := m.hostTree(path)
	if err != nil {
		return nil, "", err
	}
	defer tree.Close()
	empty, err := m.s.builtin("empty0", nil)
	if err != nil {
		return nil, "", err
	}
	plain, err := planted(m.mounter, m.s.layers)
	if err != nil {
		return nil, "", err
	}
	defer plain.Close()
	mount, err = m.mounter.Mount(shift.Overlay{Lowers: []shift.Dir{{Tree: tree, Name: "."}, {Tree: plain, Name: empty + "/fs"}}})
	return mount, why, err
}

func (m *Mapped) hostTree(path string) (tree *shift.Tree, why string, err error) {
	clone, err := mnt.ClonePath(nil, path, false)
	if err != nil {
		return nil, "", err
	}
	if m.ns != nil {
		err = mnt.Idmap(clone, m.ns, false)
	}
	if fault.Is(err, fault.Unsupported) {
		why, err = "files of "+path+" belong to nobody: "+err.Error(), nil
	}
	if err != nil {
		clone.Close()
		return nil, "", err
	}
	tree, err = m.mounter.Plant(clone)
	return tree, why, err
}
