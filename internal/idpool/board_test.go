package idpool

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/words/record"
)

// board is memory that all processes of a soak share: who has which range, told
// by those who have it and not by their pools. It outlives any of them.
type board struct {
	ops  *atomic.Uint32 // done by all workers
	told *atomic.Uint32 // leases that were checked
	gen  *atomic.Uint32 // goes up with every change of the host's files

	leased []atomic.Uint32 // by range: 1 + the number of the data root
	pinned []atomic.Uint32 // a bit for each data root that holds or shares it
	dirty  []atomic.Uint32 // 1 + the number of the data root whose file or process is in it
	theirs []atomic.Uint32 // gen when a line of the host gave it to somebody; 0: none does
}

const (
	boardHeader = 4
	boardWords  = boardHeader + 4*maxRanges
)

func newBoard(t *testing.T, path string) board {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, 4*boardWords), 0o600); err != nil {
		t.Fatal(err)
	}
	b, unmap := openBoard(path)
	t.Cleanup(unmap)
	return b
}

func openBoard(path string) (b board, unmap func()) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	raw, err := unix.Mmap(int(f.Fd()), 0, 4*boardWords, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	words := unsafe.Slice((*atomic.Uint32)(unsafe.Pointer(&raw[0])), boardWords)
	part := func(i int) []atomic.Uint32 { return words[boardHeader+i*maxRanges:][:maxRanges] }
	return board{&words[0], &words[1], &words[2], part(0), part(1), part(2), part(3)}, func() { _ = unix.Munmap(raw) }
}

// rangesIn calls do with the number of each range of a lease.
func rangesIn(l record.Lease, do func(r uint64)) {
	e := ranges(l)
	for r := e.from / rangeIDs; r < e.to/rangeIDs; r++ {
		do(r)
	}
}

// check says what is wrong with a lease that root has just been granted, having
// looked at gen before it asked, and writes it down.
func (b board) check(root uint32, gen uint32, l record.Lease) (wrong error) {
	b.told.Add(1)
	rangesIn(l, func(r uint64) {
		if !b.leased[r].CompareAndSwap(0, root+1) {
			wrong = fmt.Errorf("range %d is leased to root %d already", r, b.leased[r].Load()-1)
		}
		if pins := b.pinned[r].Load(); pins != 0 {
			wrong = fmt.Errorf("range %d is held or shared by roots %b", r, pins)
		}
		if by := b.dirty[r].Load(); by != 0 {
			wrong = fmt.Errorf("something of root %d is left in range %d", by-1, r)
		}
		if since := b.theirs[r].Load(); since != 0 && since <= gen {
			wrong = fmt.Errorf("range %d is given to somebody else by the host since %d, now %d", r, since, gen)
		}
	})
	return wrong
}

// adopt writes down a lease that root has had before.
func (b board) adopt(root uint32, l record.Lease) (wrong error) {
	rangesIn(l, func(r uint64) {
		if !b.leased[r].CompareAndSwap(0, root+1) && b.leased[r].Load() != root+1 {
			wrong = fmt.Errorf("range %d, kept over a restart, is leased to root %d", r, b.leased[r].Load()-1)
		}
	})
	return wrong
}

// free notes that a lease is about to end.
func (b board) free(root uint32, l record.Lease) {
	rangesIn(l, func(r uint64) { b.leased[r].CompareAndSwap(root+1, 0) })
}

// forget removes what a root has written, in ranges that match.
func (b board) forget(root uint32, of func(r int) bool) {
	for r := range maxRanges {
		if of(r) {
			b.leased[r].CompareAndSwap(root+1, 0)
			b.pinned[r].And(^(1 << root))
			b.dirty[r].CompareAndSwap(root+1, 0)
		}
	}
}
