package volume

import (
	"cmp"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// checkOptions knows the options of Docker's local driver, in its words.
func checkOptions(o map[string]string) error {
	for key := range o {
		switch key {
		case "type", "o", "device", "size":
		default:
			return errors.New(`invalid option: "` + key + `"`)
		}
	}
	if size, err := quotaOf(o); err != nil || !mounts(o) && (size > 0 || o["o"] == "") {
		return err
	}
	for _, key := range []string{"device", "type"} {
		if o[key] == "" {
			return errors.New(`missing required option: "` + key + `"`)
		}
	}
	if device, ok := strings.CutPrefix(o["device"], "//"); ok && o["type"] == "cifs" {
		host, _, _ := strings.Cut(device, "/")
		if _, _, err := net.SplitHostPort(host); err == nil {
			return errors.New("port not allowed in CIFS device URL, include 'port' in 'o='")
		}
	}
	if isBind(o["o"]) && slices.Contains(strings.Split(o["o"], ","), insideIDs) && systemPath(o["device"]) {
		return errors.New("device " + o["device"] + " belongs to the host's system: with " + insideIDs + " container root would be its owner")
	}
	return nil
}

// insideIDs is a word of our own among the options of a bind: what is stored are
// the container's ids. Without it a directory of the host's shows the host's
// owners, as with -v: it is in reach of the host's users, and a program in it that
// container root makes setuid root would make them root.
const insideIDs = "idmap"

// hostOwned reports whether a volume shows the host's owners: no id that a
// container stores there is one of its own.
func hostOwned(rec record.Volume) bool {
	return isBind(rec.Options["o"]) && !slices.Contains(strings.Split(rec.Options["o"], ","), insideIDs)
}

func isBind(options string) bool {
	words := strings.Split(options, ",")
	return slices.Contains(words, "bind") || slices.Contains(words, "rbind")
}

// Use says that user, a container that starts, has the volume, which is mounted
// for the first of them if its driver is to mount something. It may be repeated.
func (s *Store) Use(name, user string) error {
	e, err := s.find(name)
	if err != nil || e.rec.Project == 0 && !mounts(e.rec.Options) {
		return err
	}
	e.io.Lock()
	defer e.io.Unlock()
	at, err := s.open(e)
	if err != nil {
		return err
	}
	defer at.Close()
	if !mounts(e.rec.Options) {
		return s.held(e, at)
	}
	mounted, err := isMount(at)
	if err != nil {
		return err
	}
	if !mounted {
		if err := mountOptions(at, e.rec.Options); err != nil {
			hint := cmp.Or(fault.HintOf(err), "see the options in fief volume inspect "+name)
			return fault.Wrap(fault.Invalid, "use volume", name, err, hint)
		}
		failpoint.Hit("volume-mounted")
	}
	e.users[user] = struct{}{}
	return nil
}

// Free ends the use of a volume by user; after the last what the driver mounted
// is unmounted. It may be repeated.
func (s *Store) Free(name, user string) {
	e, err := s.find(name)
	if err != nil || !mounts(e.rec.Options) {
		return
	}
	e.io.Lock()
	defer e.io.Unlock()
	delete(e.users, user)
	if len(e.users) > 0 {
		return
	}
	if err := s.unmount(e); err != nil {
		slog.Warn("cannot unmount a volume", "volume", name, "error", err)
	}
}

// unmount takes away what the driver mounted. Containers have clones of it, so
// that it may be in use. Preconditions: e.io is held.
func (s *Store) unmount(e *entry) error {
	if !mounts(e.rec.Options) {
		return nil
	}
	for {
		at, err := s.open(e)
		if err != nil {
			return nil // nothing is there to be unmounted
		}
		mounted, err := isMount(at)
		at.Close()
		if err != nil || !mounted {
			return err
		}
		path := s.shown(e.rec.Name, e).Mountpoint
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return sysx.Fault("unmount", path, err)
		}
	}
}

// isMount reports whether f is the root of a mount (statx(2), Linux 5.8).
func isMount(f *os.File) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, 0, &st); err != nil {
		return false, sysx.Fault("look at", f.Name(), err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// mountOptions mounts on at what the options of a volume say, as mount(8) with
// -t, -o and a device does.
func mountOptions(at *os.File, o map[string]string) error {
	flags, rest, propagation := parseFlags(o["o"])
	kind, device := o["type"], o["device"]
	rest, err := resolved(kind, device, rest)
	if err != nil {
		return err
	}
	target := fd.Path(at)
	words := strings.Join(rest, ",")
	if err := unix.Mount(device, target, kind, flags, words); err != nil {
		said := "failed to mount local volume: mount " + device + ":" + at.Name() + ", data: " + hidden(words) + ": " + err.Error()
		return &fault.Error{Class: fault.Invalid, Cause: errors.New(said), Hint: mountHint(kind, rest, err)}
	}
	if flags&unix.MS_BIND != 0 && flags&^(unix.MS_BIND|unix.MS_REC) != 0 {
		// A bind takes no other flag before it is remounted (mount(2)).
		if err := remount(at, flags|unix.MS_REMOUNT); err != nil {
			return err
		}
	}
	if propagation == 0 {
		return nil
	}
	return sysx.Fault("set propagation of", at.Name(), unix.Mount("", at.Name(), "", propagation, ""))
}

// remount sets the flags of what was just mounted on at; at itself is below it.
func remount(at *os.File, flags uintptr) error {
	err := unix.Mount("", at.Name(), "", flags, "")
	if err != nil {
		_ = unix.Unmount(at.Name(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	return sysx.Fault("set the flags of the mount on", at.Name(), err)
}

// hidden is what of the options may be shown: no password.
func hidden(words string) string {
	list := strings.Split(words, ",")
	for i, w := range list {
		if strings.HasPrefix(w, "password=") || strings.HasPrefix(w, "pass=") {
			list[i] = "password=********"
		}
	}
	return strings.Join(list, ",")
}

// parseFlags takes the words of mount(8) that are flags of mount(2) out of a list
// of options.
func parseFlags(options string) (flags uintptr, rest []string, propagation uintptr) {
	for word := range strings.SplitSeq(options, ",") {
		set, clear := flagOf(word)
		p := propagationOf(word)
		switch {
		case set != 0 || clear != 0:
			flags = flags&^clear | set
		case p != 0:
			propagation = p
		case word != insideIDs && !forOthers(word):
			rest = append(rest, word)
		}
	}
	return flags, rest, propagation
}

// forOthers reports whether a word is for mount(8) itself, or for who reads fstab(5): no
// file system knows it.
func forOthers(word string) bool {
	switch word {
	case "", "defaults", "_netdev", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail":
		return true
	}
	return strings.HasPrefix(word, "x-") || strings.HasPrefix(word, "comment=")
}

// flagOf is what a word sets and clears; mount(8), "Filesystem-independent mount
// options".
func flagOf(word string) (set, clear uintptr) {
	if word == "rbind" {
		return unix.MS_BIND | unix.MS_REC, 0
	}
	for _, f := range []struct {
		on, off string
		flag    uintptr
	}{
		{"ro", "rw", unix.MS_RDONLY}, {"nosuid", "suid", unix.MS_NOSUID}, {"nodev", "dev", unix.MS_NODEV}, {"noexec", "exec", unix.MS_NOEXEC},
		{"sync", "async", unix.MS_SYNCHRONOUS}, {"mand", "nomand", unix.MS_MANDLOCK}, {"noatime", "atime", unix.MS_NOATIME},
		{"nodiratime", "diratime", unix.MS_NODIRATIME}, {"relatime", "norelatime", unix.MS_RELATIME},
		{"strictatime", "nostrictatime", unix.MS_STRICTATIME}, {"bind", "", unix.MS_BIND}, {"dirsync", "", unix.MS_DIRSYNC},
	} {
		switch word {
		case "":
			return 0, 0
		case f.on:
			return f.flag, 0
		case f.off:
			return 0, f.flag
		}
	}
	return 0, 0
}

func propagationOf(word string) uintptr {
	word, deep := strings.CutPrefix(word, "r")
	var p uintptr
	switch word {
	case "private":
		p = unix.MS_PRIVATE
	case "shared":
		p = unix.MS_SHARED
	case "slave":
		p = unix.MS_SLAVE
	case "unbindable":
		p = unix.MS_UNBINDABLE
	default:
		return 0
	}
	if deep {
		p |= unix.MS_REC
	}
	return p
}
