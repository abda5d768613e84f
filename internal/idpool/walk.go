package idpool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
)

const (
	// A walk in the background looks at about 20,000 files in a second.
	walkBurst = 200
	walkNap   = 10 * time.Millisecond
	// maxDeep bounds the descriptors that a walk holds. Who nests directories
	// deeper keeps the ids of a container from being leased, no more.
	maxDeep = 256
)

// sign is a trace of ids: a file that belongs to them, or a directory that
// cannot be read. The zero value is none.
type sign struct {
	why       string
	top, name string // of the file: name is below top
}

// hunt looks for files of several quarantines at once.
type hunt struct {
	ctx   context.Context
	top   string
	rests []*rest // nothing has been found of these yet
	found map[*rest]sign
	seen  int // files
}

// walk looks for files of each of rests in what it left. What it cannot read is
// a sign, too; what has vanished is none. It ends early, with nothing of what
// is not known, when ctx does.
func walk(ctx context.Context, rests map[string]*rest) map[*rest]sign {
	tops := map[string][]*rest{}
	found := map[*rest]sign{}
	for _, r := range rests {
		if r.still() {
			found[r] = r.sign
			continue
		}
		for _, top := range r.Left {
			tops[top] = append(tops[top], r)
		}
	}
	for top, rests := range tops {
		h := hunt{ctx: ctx, top: top, found: found}
		for _, r := range rests {
			if found[r].why == "" {
				h.rests = append(h.rests, r)
			}
		}
		h.root()
	}
	if ctx.Err() != nil {
		return nil
	}
	for _, r := range rests {
		if _, known := found[r]; !known {
			found[r] = sign{}
		}
	}
	return found
}

// still reports whether the file that the last walk found is there yet.
func (r *rest) still() bool {
	if r.sign.name == "" {
		return false
	}
	top, err := openTop(r.sign.top)
	if err != nil {
		return false
	}
	defer top.Close()
	f, err := at.Beneath(top, r.sign.name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return false
	}
	defer f.Close()
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && r.has(&st)
}

func (r *rest) has(st *unix.Stat_t) bool {
	for _, e := range r.IDs {
		if e.has(uint64(st.Uid)) || e.has(uint64(st.Gid)) {
			return true
		}
	}
	return false
}

func (e extent) has(id uint64) bool { return e.from <= id && id < e.to }

// openTop opens what a container had, without reading it. The path may lead
// through symbolic links, but is none itself.
func openTop(path string) (*os.File, error) {
	n, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return fd.Wrap(n, path), nil
}

func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// root begins at the top, which may be a single file.
func (h *hunt) root() {
	if len(h.rests) == 0 {
		return
	}
	top, err := openTop(h.top)
	if vanished(err) {
		return
	}
	if err != nil {
		h.unreadable("", err)
		return
	}
	defer top.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(top.Fd()), &st); err != nil {
		h.unreadable("", err)
		return
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		h.unreadable("", errors.New("it is a symbolic link now"))
	case unix.S_IFDIR:
		h.match(".", &st)
		h.dir(top, ".", "", 0)
	default:
		h.match(".", &st)
	}
}

// more reports whether there is still something to look for.
func (h *hunt) more() bool { return len(h.rests) > 0 && h.ctx.Err() == nil }

// dir looks at what is in the directory name of parent, the path of which below
// the top is rel. Other mounts are other file systems' and not looked at.
func (h *hunt) dir(parent *os.File, name, rel string, deep int) {
	if !h.more() {
		return
	}
	if deep > maxDeep {
		h.unreadable(rel, fmt.Errorf("it is deeper than %d directories", maxDeep))
		return
	}
	d, err := at.Beneath(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if vanished(err) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ELOOP) {
		return // removed, mounted over, or replaced by a link, since it was listed
	}
	if err != nil {
		h.unreadable(rel, err)
		return
	}
	defer d.Close()
	for h.more() {
		names, err := d.Readdirnames(walkBurst)
		for _, name := range names {
			h.entry(d, name, filepath.Join(rel, name), deep)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ENOENT) {
			return
		}
		if err != nil {
			h.unreadable(rel, err)
			return
		}
	}
}

func (h *hunt) entry(d *os.File, name, rel string, deep int) {
	if !h.more() {
		return
	}
	if h.seen++; h.seen%walkBurst == 0 {
		select {
		case <-h.ctx.Done():
		case <-time.After(walkNap):
		}
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	if vanished(err) {
		return
	}
	if err != nil {
		h.unreadable(rel, err)
		return
	}
	h.match(rel, &st)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		h.dir(d, name, rel, deep+1)
	}
}

// match notes whose file it is.
func (h *hunt) match(rel string, st *unix.Stat_t) {
	if max(st.Uid, st.Gid) < rangeIDs {
		return // no container's: the usual case
	}
	why := fmt.Sprintf("%s belongs to %d:%d", filepath.Join(h.top, rel), st.Uid, st.Gid)
	h.note(sign{why, h.top, rel}, func(r *rest) bool { return r.has(st) })
}

// unreadable notes that files of all may be where they cannot be seen.
func (h *hunt) unreadable(rel string, err error) {
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	why := fmt.Sprintf("cannot read %s: %v", filepath.Join(h.top, rel), err)
	h.note(sign{why: why}, func(*rest) bool { return true })
}

func (h *hunt) note(s sign, of func(*rest) bool) {
	var rest []*rest
	for _, r := range h.rests {
		if of(r) {
			h.found[r] = s
			continue
		}
		rest = append(rest, r)
	}
	h.rests = rest
}
