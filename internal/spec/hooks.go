package spec

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/mnt"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// What is in the directory that hooks are shown.
const (
	bundleRoot   = "rootfs"
	bundleConfig = "config.json"
)

// Hooking is what the createContainer hooks of a container find: descriptors that
// its plan expects (launch.Compiler.Container), which are the caller's to close.
type Hooking struct {
	Root   string   // where the container's root is in the hooks' sight
	Bundle *os.File // detached mount of the directory with Root
	State  *os.File // their input
	Output *os.File // takes what they print
}

// Close closes what there is of them.
func (h Hooking) Close() {
	for _, f := range []*os.File{h.Bundle, h.State, h.Output} {
		if f != nil {
			f.Close()
		}
	}
}

// ForHooks makes a bundle as an OCI runtime has one in dir, which is replaced, and
// what else createContainer hooks need; pair is the container's. They run in its
// namespaces, as its root, which may not enter private directories of the host:
// in their sight, and only there, the bundle lies on private, or on the first
// directory on the way there that is closed to that root.
//
// Their input has no pid: the state is "creating", which need not have one
// (runtime.md, State), and there is none before the plan is carried out.
func ForHooks(config *specs.Spec, id, dir, private string, pair idmap.Pair) (_ Hooking, err error) {
	if !pair.IsZero() {
		private = closed(private)
	}
	h := Hooking{Root: filepath.Join(private, bundleRoot)}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	if err := writeBundle(dir, config, pair); err != nil {
		return h, err
	}
	if h.Bundle, err = mnt.ClonePath(nil, dir, false); err != nil {
		return h, err
	}
	state, err := json.Marshal(specs.State{Version: specs.Version, ID: id, Status: specs.StateCreating, Bundle: private, Annotations: config.Annotations})
	if err != nil {
		return h, fault.Wrap(fault.Internal, "encode", "state", err, "")
	}
	if h.Output, err = fd.Memory("hooks:output", nil); err != nil {
		return h, err
	}
	if h.State, err = fd.Memory("hooks:state", state); err != nil {
		return h, err
	}
	return h, fd.Seal(h.State)
}

// closed is the first directory on the way to dir that not everybody may enter,
// dir itself when there is none.
func closed(dir string) string {
	for i := 1; i < len(dir); i++ {
		if dir[i] != '/' {
			continue
		}
		if info, err := os.Stat(dir[:i]); err == nil && info.Mode()&0o001 == 0 {
			return dir[:i]
		}
	}
	return dir
}

// writeBundle makes a directory that the container's root alone may read, besides
// the host's.
func writeBundle(dir string, config *specs.Spec, pair idmap.Pair) error {
	if err := os.RemoveAll(dir); err != nil {
		return fault.Wrap(fault.Internal, "remove", dir, err, "")
	}
	if err := os.MkdirAll(filepath.Join(dir, bundleRoot), 0o700); err != nil {
		return fault.Wrap(fault.Internal, "create", dir, err, "")
	}
	content, err := json.Marshal(config)
	if err != nil {
		return fault.Wrap(fault.Internal, "encode", bundleConfig, err, "")
	}
	if err := os.WriteFile(filepath.Join(dir, bundleConfig), content, 0o400); err != nil {
		return fault.Wrap(fault.Internal, "write", filepath.Join(dir, bundleConfig), err, "")
	}
	uid, gid := idmap.Host(0), idmap.Host(0)
	if !pair.IsZero() {
		uid, _ = pair.UID.ToHost(0)
		gid, _ = pair.GID.ToHost(0)
	}
	for _, name := range []string{bundleConfig, bundleRoot, "."} {
		if err := os.Chown(filepath.Join(dir, name), int(uid), int(gid)); err != nil {
			return fault.Wrap(fault.Internal, "give away", filepath.Join(dir, name), err, "")
		}
	}
	return nil
}
