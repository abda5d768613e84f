package logread

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"fief/internal/monitor/filelog"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// chain is the open files of a log, oldest first; the last is the one being
// written.
type chain []*part

// patience is how long a log may be rotated under the opening of its files. A
// program that fills max-size in less than opening takes is met again and again.
const patience = 5 * time.Second

// openChain opens all files of a log as they are at one moment. No log is an
// empty chain.
func openChain(path string) (chain, error) {
	for until := time.Now().Add(patience); time.Now().Before(until); {
		c, names, err := tryChain(path)
		if err != nil {
			c.close()
			return nil, fault.Wrap(fault.Internal, "open log", path, err, "")
		}
		if c.current(path, names) {
			return c, nil
		}
		c.close() // rotated meanwhile
	}
	return nil, fault.New(fault.Busy, "open log", path, "it is rotated faster than it can be opened", "choose a larger max-size")
}

func tryChain(path string) (chain, []filelog.File, error) {
	names, err := filelog.Files(path)
	if err != nil {
		return nil, nil, err
	}
	var c chain
	for _, name := range names {
		p, err := openPart(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return c, names, err
		}
		c = append(c, p)
	}
	return c, names, nil
}

// current reports whether the chain is still the one at path: every name was
// opened and is still there, the newest file is the one that was opened, and no
// file was opened under two names.
func (c chain) current(path string, names []filelog.File) bool {
	now, err := filelog.Files(path)
	if err != nil || !slices.Equal(now, names) || len(c) != len(names) {
		return false
	}
	if len(c) == 0 {
		return true
	}
	var before fs.FileInfo
	for _, p := range c {
		info, err := p.disk.Stat()
		if err != nil || before != nil && os.SameFile(before, info) {
			return false
		}
		before = info
	}
	newest, err := os.Stat(names[len(names)-1].Name)
	return err == nil && os.SameFile(before, newest)
}

func (c chain) close() {
	for _, p := range c {
		p.close()
	}
}

// end returns which file is the newest and how long it is.
func (c chain) end() (fs.FileInfo, int64, error) {
	info, err := c[len(c)-1].disk.Stat()
	if err != nil {
		return nil, 0, fault.Wrap(fault.Internal, "read log", c[len(c)-1].disk.Name(), err, "")
	}
	return info, info.Size(), nil
}

// advance goes to the file that was begun after the current one. False: the
// current one is the newest.
func (r *reader) advance() (bool, error) {
	for range 100 {
		f, newest, err := successor(r.path, r.file)
		if err != nil {
			return false, r.fault(err)
		}
		if newest {
			return false, nil
		}
		if f != nil {
			return true, r.fault(r.use(f))
		}
	}
	return false, nil // in the middle of a rotation; the writer's next step wakes us
}

// successor opens the file after cur. A rotation renames the files one by one,
// oldest first, so the neighbours are looked up again after opening: only when
// they are still neighbours nothing lies between them. nil without an error:
// try again.
func successor(path string, cur *part) (next *part, newest bool, err error) {
	mine, err := cur.disk.Stat()
	if err != nil {
		return nil, false, err
	}
	files, at := position(path, mine)
	switch {
	case at == len(files)-1 && at >= 0 && files[at].Number == 0:
		return nil, true, nil
	case at >= 0 && at+1 < len(files):
		next, err = openPart(files[at+1])
	case at < 0 && len(files) > 0: // ours was dropped; everything there is newer
		next, err = openPart(files[0])
	}
	if os.IsNotExist(err) {
		return nil, false, nil
	}
	if err != nil || next == nil {
		return nil, false, err
	}
	if info, err := next.disk.Stat(); err == nil {
		now, mineNow := position(path, mine)
		_, its := position(path, info)
		if at >= 0 && mineNow >= 0 && its == mineNow+1 && now[mineNow].Number == now[its].Number+1 ||
			at < 0 && mineNow < 0 && its == 0 {
			return next, false, nil
		}
	}
	next.close()
	return nil, false, nil
}

// position lists the files of a log and returns the place of one of them, -1
// when it is not there. A file that has been compressed since is found by the
// inode number that its compressed form notes: as long as ours is open no newer
// file can have the number, so the newest with it is ours.
func position(path string, file fs.FileInfo) (files []filelog.File, at int) {
	files, err := filelog.Files(path)
	if err != nil {
		return nil, -1
	}
	for i, f := range files {
		if info, err := os.Stat(f.Name); err == nil && os.SameFile(info, file) {
			return files, i
		}
	}
	for i := len(files) - 1; i >= 0; i-- {
		if files[i].Packed && packedFrom(files[i].Name) == inode(file) {
			return files, i
		}
	}
	return files, -1
}

// tail returns the place after which there are q.Tail lines, reading backwards.
func (c chain) tail(q ask.Logs) (file int, offset int64, err error) {
	t := &tailer{q: q}
	for i := len(c) - 1; i >= 0; i-- {
		text, err := c[i].open()
		if err != nil {
			return i, 0, err
		}
		offset, done, err := t.scan(text)
		if err != nil || done {
			return i, offset, err
		}
	}
	return 0, 0, nil
}

// tailer counts lines from the end of a log.
type tailer struct {
	q       ask.Logs
	counted int
	began   bool // a wanted record was seen: the last one ends a line in any case
}

const block = 64 << 10

// scan walks a file's records backwards until enough lines were counted.
func (t *tailer) scan(f *os.File) (offset int64, done bool, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, false, err
	}
	buf, from := []byte(nil), end // buf holds the bytes from…end
	for {
		// A record is complete with its newline at end-1: look for the one before.
		at := -1
		if len(buf) > 0 {
			at = bytes.LastIndexByte(buf[:len(buf)-1], '\n')
		}
		if at < 0 && from > 0 {
			size := min(from, block)
			more := make([]byte, size, int(size)+len(buf))
			if _, err := f.ReadAt(more, from-size); err != nil {
				return 0, false, err
			}
			buf, from = append(more, buf...), from-size
			continue
		}
		if len(buf) > 0 && t.enough(buf[at+1:]) {
			return from + int64(len(buf)), true, nil
		}
		if at < 0 {
			return 0, false, nil
		}
		buf = buf[:at+1]
	}
}

// enough counts one record and reports whether it lies before the lines wanted.
func (t *tailer) enough(rec []byte) bool {
	stream, ends, ok := glance(rec)
	if !ok || !wants(t.q, stream) || !ends && t.began {
		return false
	}
	t.began = true
	if t.counted == t.q.Tail {
		return true
	}
	t.counted++
	return false
}
