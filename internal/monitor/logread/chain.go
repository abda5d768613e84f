package logread

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"fief/internal/monitor/jsonlog"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// chain is the open files of a log, oldest first; the last is the one being
// written.
type chain []*os.File

// patience is how long a log may be rotated under the opening of its files. A
// program that fills max-size in less than opening takes is met again and again.
const patience = 5 * time.Second

// openChain opens all files of a log as they are at one moment. No log is an
// empty chain.
func openChain(path string) (chain, error) {
	for until := time.Now().Add(patience); time.Now().Before(until); {
		c, err := tryChain(path)
		if err != nil {
			c.close()
			return nil, fault.Wrap(fault.Internal, "open log", path, err, "")
		}
		if c.current(path) {
			return c, nil
		}
		c.close() // rotated meanwhile
	}
	return nil, fault.New(fault.Busy, "open log", path, "it is rotated faster than it can be opened", "choose a larger max-size")
}

func tryChain(path string) (chain, error) {
	names, err := jsonlog.Files(path)
	if err != nil {
		return nil, err
	}
	var c chain
	for _, name := range names {
		f, err := os.Open(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return c, err
		}
		c = append(c, f)
	}
	return c, nil
}

// current reports whether the chain is still the one at path: the newest file
// is there, and no file was opened under two names.
func (c chain) current(path string) bool {
	now, err := os.Stat(path)
	if err != nil {
		names, lerr := jsonlog.Files(path)
		return lerr == nil && len(names) == 0 && len(c) == 0
	}
	var before fs.FileInfo
	for _, f := range c {
		info, err := f.Stat()
		if err != nil || before != nil && os.SameFile(before, info) {
			return false
		}
		before = info
	}
	return before != nil && os.SameFile(before, now)
}

func (c chain) close() {
	for _, f := range c {
		f.Close()
	}
}

// end returns which file is the newest and how long it is.
func (c chain) end() (fs.FileInfo, int64, error) {
	info, err := c[len(c)-1].Stat()
	if err != nil {
		return nil, 0, fault.Wrap(fault.Internal, "read log", c[len(c)-1].Name(), err, "")
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
			r.use(f)
			return true, nil
		}
	}
	return false, nil // in the middle of a rotation; the writer's next step wakes us
}

// successor opens the file after cur. A rotation renames the files one by one,
// oldest first, so the neighbours are looked up again after opening: only when
// they are still neighbours nothing lies between them. nil without an error:
// try again.
func successor(path string, cur *os.File) (next *os.File, newest bool, err error) {
	mine, err := cur.Stat()
	if err != nil {
		return nil, false, err
	}
	at, highest := position(path, mine)
	switch {
	case at == 0:
		return nil, true, nil
	case at > 0:
		next, err = os.Open(numbered(path, at-1))
	case highest >= 0: // ours was dropped; everything there is newer
		next, err = os.Open(numbered(path, highest))
	}
	if os.IsNotExist(err) {
		return nil, false, nil
	}
	if err != nil || next == nil {
		return nil, false, err
	}
	if info, err := next.Stat(); err == nil {
		now, top := position(path, mine)
		its, _ := position(path, info)
		if at > 0 && now == its+1 || at < 0 && now < 0 && its == top {
			return next, false, nil
		}
	}
	next.Close()
	return nil, false, nil
}

// position returns the number under which a file is in the chain, -1 when it is
// not, and the highest number there is.
func position(path string, file fs.FileInfo) (at, highest int) {
	at, highest = -1, -1
	names, err := jsonlog.Files(path)
	if err != nil {
		return at, highest
	}
	for _, name := range names {
		n := 0
		if name != path {
			n, _ = strconv.Atoi(name[len(path)+1:])
		}
		info, err := os.Stat(name)
		if err != nil {
			continue
		}
		highest = max(highest, n)
		if os.SameFile(info, file) {
			at = n
		}
	}
	return at, highest
}

func numbered(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// tail returns the place after which there are q.Tail lines, reading backwards.
func (c chain) tail(q ask.Logs) (file int, offset int64, err error) {
	t := &tailer{q: q}
	for i := len(c) - 1; i >= 0; i-- {
		offset, done, err := t.scan(c[i])
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
	i := bytes.LastIndex(rec, []byte(`","stream":"`))
	if i < 0 || rec[len(rec)-1] != '\n' {
		return false
	}
	stream, _, _ := bytes.Cut(rec[i+len(`","stream":"`):], []byte{'"'})
	if !wants(t.q, string(stream)) {
		return false
	}
	if !endsLine(rec[:i]) && t.began {
		return false
	}
	t.began = true
	if t.counted == t.q.Tail {
		return true
	}
	t.counted++
	return false
}

// endsLine reports whether JSON text ends in an escaped newline, and not in an
// escaped backslash and an n.
func endsLine(text []byte) bool {
	if !bytes.HasSuffix(text, []byte(`\n`)) {
		return false
	}
	slashes := 0
	for i := len(text) - 2; i >= 0 && text[i] == '\\'; i-- {
		slashes++
	}
	return slashes%2 == 1
}
