package image

import "io"

// ahead reads from r on a goroutine of its own, so that decompressing and
// hashing go on while files are made. Close ends it and waits for it.
type ahead struct {
	blocks chan block
	spare  chan []byte
	stop   chan struct{}
	now    block
}

// block is what one Read returned.
type block struct {
	buf  []byte
	data []byte
	err  error
}

func newAhead(r io.Reader) *ahead {
	const depth = 4
	a := &ahead{blocks: make(chan block, depth), spare: make(chan []byte, depth+2), stop: make(chan struct{})}
	for range depth + 2 {
		a.spare <- make([]byte, 256<<10)
	}
	go a.run(r)
	return a
}

func (a *ahead) run(r io.Reader) {
	defer close(a.blocks)
	for {
		var buf []byte
		select {
		case buf = <-a.spare:
		case <-a.stop:
			return
		}
		n, err := readFull(r, buf)
		select {
		case a.blocks <- block{buf, buf[:n], err}:
		case <-a.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// readFull is io.ReadFull that keeps the reader's own error.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.now.data) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.buf != nil {
			a.spare <- a.now.buf
		}
		next, ok := <-a.blocks
		if !ok {
			return 0, io.ErrClosedPipe
		}
		a.now = next
	}
	n := copy(p, a.now.data)
	a.now.data = a.now.data[n:]
	return n, nil
}

func (a *ahead) Close() error {
	close(a.stop)
	for range a.blocks { // until run has ended
	}
	return nil
}
