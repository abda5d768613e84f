package filelog

import (
	"os"
	"strconv"
)

// packedEnding marks a compressed file.
const packedEnding = ".gz"

// pack compresses old files, oldest first, until none is left or the log is
// closed. Writing goes on meanwhile, and rotation may move the file under work.
func (l *Log) pack() {
	defer l.packed.Done()
	for {
		l.mu.Lock()
		src := l.unpacked()
		if src == nil || l.closed {
			l.packing = false
			l.mu.Unlock()
			if src != nil {
				src.Close()
			}
			return
		}
		l.mu.Unlock()
		err := l.packOne(src)
		src.Close()
		if err != nil {
			l.mu.Lock()
			l.err, l.packing = err, false // tried again at the next rotation
			l.mu.Unlock()
			return
		}
	}
}

// unpacked opens the oldest file that is not compressed, nil when there is none.
// Preconditions: l.mu held.
func (l *Log) unpacked() *os.File {
	for n := l.MaxFile - 1; n > 0; n-- {
		if f, err := os.Open(l.Path + "." + strconv.Itoa(n)); err == nil {
			return f
		}
	}
	return nil
}

// packOne replaces one file by its compressed form, or leaves it as it is.
func (l *Log) packOne(src *os.File) error {
	made := l.Path + packedEnding + ".new"
	dst, err := os.OpenFile(made, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	err = l.Compress(l.stop, src, dst)
	dst.Close()
	if err != nil {
		os.Remove(made)
		return err
	}
	mine, err := src.Stat()
	if err != nil {
		os.Remove(made)
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := l.MaxFile - 1; n > 0; n-- {
		name := l.Path + "." + strconv.Itoa(n)
		if info, err := os.Stat(name); err == nil && os.SameFile(info, mine) {
			if err := os.Rename(made, name+packedEnding); err != nil {
				return err
			}
			return os.Remove(name)
		}
	}
	return os.Remove(made) // rotated away meanwhile
}
