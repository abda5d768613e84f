package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"runtime/debug"

	"go.etcd.io/bbolt"

	bolterrors "go.etcd.io/bbolt/errors"
)

// The layout of a bbolt file, version 2 (go.etcd.io/bbolt internal/common:
// page.go, meta.go, bucket.go), in the byte order of the machine, which is
// little-endian wherever fief is built.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeader = 16 // id u64, flags u16, count u16, overflow u32
	metaSize   = 64 // behind a page header: magic, version, page size, flags u32; root, sequence, freelist, pages, txid, checksum u64
	element    = 16 // branch: pos, ksize u32, page u64; leaf: flags, pos, ksize, vsize u32
	bucketHead = 16 // root u64, sequence u64

	branchPage = 0x01
	leafPage   = 0x02
	bucketLeaf = 0x01

	maxDepth = 64
)

// intact walks every page that can be reached, and refuses what would make bbolt
// fail with a panic: some of its goroutines let nobody catch it, and an address
// beyond the file's end is a SIGBUS. What values hold is not looked at. f must
// be locked.
func intact(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() == 0 {
		return nil // bbolt makes it
	}
	w := &walk{file: f, size: st.Size(), seen: map[uint64]bool{}}
	root, err := w.root()
	if err != nil {
		return err
	}
	return w.page(root, span{}, 0)
}

// caught makes an error of a panic about a page that was whole when the file was
// opened, or that the disk cannot read any more (the file is mapped).
// Preconditions: debug.SetPanicOnFault holds, else the latter ends the process.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", bolterrors.ErrInvalid, p)
	}
}

// view is bbolt's View for which damage is an error.
func (db *DB) view(f func(*bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer caught(&err)
	return db.bolt.View(f)
}

type walk struct {
	file     *os.File
	size     int64
	pageSize int64
	pages    uint64 // those in use, by the newer meta page
	seen     map[uint64]bool
}

func (w *walk) bad(page uint64, what string) error {
	return fmt.Errorf("%w: page %d %s", bolterrors.ErrInvalid, page, what)
}

// root finds the newer one of the two meta pages, as bbolt does.
func (w *walk) root() (uint64, error) {
	var newest uint64
	root, found := uint64(0), false
	try := func(off int64) {
		m := make([]byte, metaSize)
		if _, err := w.file.ReadAt(m, off+pageHeader); err != nil {
			return
		}
		le := binary.LittleEndian
		sum := fnv.New64a()
		sum.Write(m[:metaSize-8])
		if le.Uint32(m) != boltMagic || le.Uint32(m[4:]) != boltVersion || le.Uint64(m[56:]) != sum.Sum64() {
			return
		}
		if txid := le.Uint64(m[48:]); !found || txid > newest {
			newest, root, w.pageSize, w.pages, found = txid, le.Uint64(m[16:]), int64(le.Uint32(m[8:])), le.Uint64(m[40:]), true
		}
	}
	try(0)
	for size := int64(1024); size <= 64<<10; size *= 2 {
		try(size)
	}
	if !found {
		return 0, fmt.Errorf("%w: neither of its two headers is whole", bolterrors.ErrInvalid)
	}
	if w.pageSize < 1024 || w.pageSize > 64<<10 || w.pages < 3 || w.pages > uint64(w.size/w.pageSize) {
		return 0, fmt.Errorf("%w: it has %d bytes, and should have %d pages of %d", bolterrors.ErrInvalid, w.size, w.pages, w.pageSize)
	}
	return root, nil
}

// span is what keys lie in: from lo on, and before hi unless that is nil.
type span struct{ lo, hi []byte }

func (w *walk) page(id uint64, keys span, depth int) error {
	if id < 2 || id >= w.pages || w.seen[id] || depth > maxDepth {
		return w.bad(id, "is used where it cannot be")
	}
	var head [pageHeader]byte
	if _, err := w.file.ReadAt(head[:], int64(id)*w.pageSize); err != nil {
		return err
	}
	more := uint64(binary.LittleEndian.Uint32(head[12:]))
	if more >= w.pages-id {
		return w.bad(id, "goes on beyond the end")
	}
	for i := range more + 1 {
		if w.seen[id+i] {
			return w.bad(id+i, "is used twice")
		}
		w.seen[id+i] = true
	}
	raw := make([]byte, int64(more+1)*w.pageSize)
	if _, err := w.file.ReadAt(raw, int64(id)*w.pageSize); err != nil && err != io.EOF {
		return err
	}
	if binary.LittleEndian.Uint64(raw) != id {
		return w.bad(id, "is another one")
	}
	return w.elements(id, raw, keys, depth)
}

// elements checks a page, which may be one inside a value. Its keys ascend: when
// they do not, bbolt panics while another of its goroutines still reads.
func (w *walk) elements(id uint64, raw []byte, keys span, depth int) error {
	le := binary.LittleEndian
	flags, count := le.Uint16(raw[8:]), int(le.Uint16(raw[10:]))
	if flags != branchPage && flags != leafPage || flags == branchPage && count == 0 || pageHeader+count*element > len(raw) {
		return w.bad(id, "is no page of a tree")
	}
	for i := range count {
		key, err := w.key(id, raw, flags, i)
		if err != nil {
			return err
		}
		if c := bytes.Compare(key, keys.lo); c < 0 || c == 0 && i > 0 || keys.hi != nil && bytes.Compare(key, keys.hi) >= 0 {
			return w.bad(id, "has keys out of order")
		}
		keys.lo = key
		e := raw[pageHeader+i*element:]
		if flags == branchPage {
			below := span{key, keys.hi}
			if i+1 < count {
				if below.hi, err = w.key(id, raw, flags, i+1); err != nil {
					return err
				}
			}
			if err := w.page(le.Uint64(e[8:]), below, depth+1); err != nil {
				return err
			}
			continue
		}
		if le.Uint32(e)&bucketLeaf == 0 {
			continue
		}
		value := e[int(le.Uint32(e[4:]))+len(key):][:le.Uint32(e[12:])]
		if err := w.bucket(id, value, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// key is that of a page's element, whose value lies in the page as well.
func (w *walk) key(id uint64, raw []byte, flags uint16, i int) ([]byte, error) {
	le := binary.LittleEndian
	at := pageHeader + i*element
	e := raw[at:]
	pos, ksize, vsize := le.Uint32(e), le.Uint32(e[4:]), uint32(0)
	if flags == leafPage {
		pos, ksize, vsize = le.Uint32(e[4:]), le.Uint32(e[8:]), le.Uint32(e[12:])
	}
	if !within(raw, at, pos, ksize, vsize) {
		return nil, w.bad(id, "goes on beyond its end")
	}
	return e[pos:][:ksize], nil
}

// bucket checks a bucket: a tree of its own, or a small one inside its value.
func (w *walk) bucket(id uint64, value []byte, depth int) error {
	if len(value) < bucketHead || depth > maxDepth {
		return w.bad(id, "has a bucket that is none")
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return w.page(root, span{}, depth)
	}
	inline := value[bucketHead:]
	if len(inline) < pageHeader || binary.LittleEndian.Uint16(inline[8:]) != leafPage {
		return w.bad(id, "has a bucket that is none")
	}
	return w.elements(id, inline, span{}, depth)
}

// within reports whether a key and its value, at pos from their element, lie in
// the page behind the elements.
func within(raw []byte, at int, pos, ksize, vsize uint32) bool {
	begin := int64(at) + int64(pos)
	return int64(pos) >= element && begin+int64(ksize)+int64(vsize) <= int64(len(raw))
}
