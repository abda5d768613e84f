package image

import (
	"io"
	"os"
	"sync"
)

// arriving is a blob on its way into the store, which can be read while it
// comes. One goroutine downloads it, one reads. What is read is not verified:
// the reader does that (a layer's diff id), and gets io.EOF only after the
// downloading half has verified the whole.
type arriving struct {
	mu    sync.Mutex // never held across a system call
	moved *sync.Cond // with mu: anything below has changed
	file  *os.File   // the reader's own descriptor; nil until begin
	have  int64      // bytes that are there; fewer after a restart
	ended bool
	err   error // why it ended; nil: it is whole
	left  bool  // nobody reads any more
	pos   int64 // the reader's
}

func newArriving() *arriving {
	a := &arriving{}
	a.moved = sync.NewCond(&a.mu)
	return a
}

// begin says that the blob is being written to file, which is the reader's to
// close from now on.
func (a *arriving) begin(file *os.File) { a.set(func() { a.file = file }) }

// grew says how many bytes are there.
func (a *arriving) grew(have int64) { a.set(func() { a.have = have }) }

// end says that nothing more will come. Only the first call counts.
func (a *arriving) end(err error) {
	a.set(func() {
		if !a.ended {
			a.ended, a.err = true, err
		}
	})
}

func (a *arriving) set(change func()) {
	a.mu.Lock()
	change()
	a.mu.Unlock()
	a.moved.Broadcast()
}

// begun waits until there is something to read, and reports false when the
// blob will not come this way: it was there already, or could not be had.
func (a *arriving) begun() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.file == nil && !a.ended {
		a.moved.Wait()
	}
	return a.file != nil
}

// Read waits for more. Whoever downloads ends it, also when it gives up.
func (a *arriving) Read(p []byte) (int, error) {
	for {
		limit, err := a.wait()
		if err != nil {
			return 0, err
		}
		n, err := a.file.ReadAt(p[:min(int64(len(p)), limit)], a.pos)
		if n > 0 {
			a.pos += int64(n)
			return n, nil
		}
		if err != io.EOF {
			return 0, err
		}
		a.set(func() { a.have = min(a.have, a.pos) }) // cut off to begin anew
	}
}

// wait returns how many bytes there are beyond what was read.
func (a *arriving) wait() (int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		switch {
		case a.left:
			return 0, os.ErrClosed
		case a.ended && a.err != nil:
			return 0, a.err
		case a.have > a.pos:
			return a.have - a.pos, nil
		case a.ended:
			return 0, io.EOF
		}
		a.moved.Wait()
	}
}

// Close ends a Read that waits, and every later one.
func (a *arriving) Close() error {
	a.set(func() { a.left = true })
	return nil
}

// free closes the descriptor, when nobody reads any more.
func (a *arriving) free() {
	if a.file != nil {
		a.file.Close()
	}
}
