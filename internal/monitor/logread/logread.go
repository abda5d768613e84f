// Package logread reads the logs that monitors write: the last lines of them,
// a span of time, and what is being added, across rotation. It only ever opens
// the files; monitor and reader do not know of each other.
package logread

import (
	"bufio"
	"context"
	"io"
	"os"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// maxRecord bounds one line of a file: 16 KiB of text, each byte of which may
// take six as an escape, and room for fields of other writers. Longer ones are
// skipped.
const maxRecord = 1 << 20

// Read calls emit for each selected line of the log at path, oldest first,
// until the end of the log or emit's first error, which it returns. With
// q.Follow the end is when ended is closed and everything has been read, q.Until
// has passed, or the log's directory has been removed; a log that does not exist
// yet is waited for. A canceled ctx ends it with a Canceled fault. Records that
// do not parse are skipped: a machine that lost power may have left some.
//
// Tail counts lines as they were written, not the 16 KiB pieces of long ones.
func Read(ctx context.Context, path string, q ask.Logs, ended <-chan struct{}, emit func(record.LogLine) error) error {
	r := &reader{path: path, q: q, emit: emit, buf: bufio.NewReaderSize(nil, 64<<10)}
	defer r.close()
	if q.Follow && !q.Until.IsZero() {
		until, cancel := context.WithDeadline(ctx, q.Until)
		defer cancel()
		err := r.follow(until, ended)
		if until.Err() != nil && ctx.Err() == nil && fault.Is(err, fault.Canceled) {
			return nil
		}
		return err
	}
	if q.Follow {
		return r.follow(ctx, ended)
	}
	return r.once(ctx)
}

// reader is one Read. file is where it is in the chain of files, nil when there
// is none yet.
type reader struct {
	path string
	q    ask.Logs
	emit func(record.LogLine) error
	file *part
	buf  *bufio.Reader
	part []byte // a record whose end has not been written
	over bool   // a line after q.Until was seen
}

func (r *reader) close() {
	if r.file != nil {
		r.file.close()
	}
}

// once reads what is there now, also when lines are added faster than read.
func (r *reader) once(ctx context.Context) error {
	c, err := openChain(r.path)
	if err != nil || len(c) == 0 {
		return err
	}
	last, size, err := c.end()
	if err == nil {
		err = r.start(c)
	}
	for err == nil && !r.over {
		if here, _ := r.file.disk.Stat(); os.SameFile(here, last) {
			return r.upTo(ctx, size)
		}
		more := false
		if err = r.lines(ctx); err == nil {
			more, err = r.advance()
		}
		if !more { // the one that was newest has been dropped meanwhile
			return err
		}
	}
	return err
}

// upTo reads the current file up to size.
func (r *reader) upTo(ctx context.Context, size int64) error {
	at, err := r.file.disk.Seek(0, io.SeekCurrent)
	if err != nil {
		return r.fault(err)
	}
	r.buf.Reset(io.LimitReader(r.file.disk, size-at))
	return r.lines(ctx)
}

// start goes to the first line asked for and closes the other files.
func (r *reader) start(c chain) error {
	at, offset, err := 0, int64(0), error(nil)
	if r.q.Tail >= 0 {
		at, offset, err = c.tail(r.q)
	}
	for i, p := range c {
		if i != at || err != nil {
			p.close()
		}
	}
	if err == nil {
		err = r.use(c[at])
	}
	if err == nil && offset > 0 {
		_, err = r.file.text.Seek(offset, io.SeekStart)
	}
	return r.fault(err)
}

// use goes to the beginning of p, which becomes the reader's.
func (r *reader) use(p *part) error {
	r.close()
	r.file = p
	r.part = r.part[:0]
	text, err := p.open()
	if err == nil {
		_, err = text.Seek(0, io.SeekStart)
	}
	r.buf.Reset(text)
	return err
}

func (r *reader) fault(err error) error {
	return fault.Wrap(fault.Internal, "read log", r.path, err, "")
}

// lines emits what the current file has.
func (r *reader) lines(ctx context.Context) error {
	for !r.over {
		piece, err := r.buf.ReadSlice('\n')
		if len(r.part)+len(piece) <= maxRecord {
			r.part = append(r.part, piece...)
		}
		switch err {
		case nil:
		case bufio.ErrBufferFull:
			continue
		case io.EOF:
			return nil
		default:
			return r.fault(err)
		}
		err = r.line(r.part)
		r.part = r.part[:0]
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return canceled(ctx)
		}
	}
	return nil
}

func canceled(ctx context.Context) error {
	return fault.Wrap(fault.Canceled, "read", "log", ctx.Err(), "")
}

// line emits one record when it is wanted.
func (r *reader) line(raw []byte) error {
	l, ok := parse(raw)
	if !ok || !wants(r.q, l.Stream) || !r.q.Since.IsZero() && l.At.Before(r.q.Since) {
		return nil
	}
	if !r.q.Until.IsZero() && l.At.After(r.q.Until) {
		r.over = true
		return nil
	}
	return r.emit(l)
}

func wants(q ask.Logs, stream string) bool {
	return stream == "stdout" && q.Stdout || stream == "stderr" && q.Stderr
}
