package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"

	"fief/internal/words/fault"
)

// What unpacks a zstd stream holds the last bytes of what it has unpacked: the
// window, whose size the stream says (RFC 8878, 3.1.1.1.2).
const (
	maxWindow   = 128 << 20 // of `zstd --long=27` and `zstd --ultra -22`; more would be asking for the host's memory
	smallWindow = 8 << 20   // what every decoder should have room for, says the RFC
)

// windows shares maxWindow bytes out among all streams that are unpacked at a
// time, so that layers which come side by side need no more than one alone. The
// nil value has small windows only, and does not count them.
type windows struct{ free *semaphore.Weighted }

func newWindows() *windows { return &windows{semaphore.NewWeighted(maxWindow)} }

// windowed unpacks a zstd stream. It begins with the first Read, which waits
// until there is room for the window.
type windowed struct {
	ctx     context.Context
	in      *bufio.Reader
	windows *windows
	size    int64 // of the window
	taken   bool
	z       *zstd.Decoder
}

func (w *windowed) Read(p []byte) (int, error) {
	if w.z == nil {
		if err := w.open(); err != nil {
			return 0, err
		}
	}
	n, err := w.z.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = w.tooLarge()
	}
	return n, err
}

func (w *windowed) open() (err error) {
	w.size = w.window()
	if w.windows == nil {
		w.size = min(w.size, smallWindow)
	} else {
		if err := w.windows.free.Acquire(w.ctx, w.size); err != nil {
			return fault.Wrap(fault.Canceled, "unpack archive", "", err, "")
		}
		w.taken = true
	}
	w.collect()
	w.z, err = zstd.NewReader(w.in, zstd.WithDecoderMaxWindow(uint64(w.size)), zstd.WithDecoderConcurrency(1))
	return err
}

// window is what the first frame asks for, smallWindow at least, and the most
// there is where that frame is to be skipped. No frame that follows may ask for
// more: all that compress in pieces give each the same window.
func (w *windowed) window() int64 {
	var h zstd.Header
	head, _ := w.in.Peek(zstd.HeaderMaxSize)
	switch err := h.Decode(head); {
	case err != nil:
		return smallWindow // it will say so itself
	case h.Skippable:
		return maxWindow
	case h.SingleSegment:
		h.WindowSize = h.FrameContentSize
	}
	return int64(min(max(h.WindowSize, smallWindow), maxWindow))
}

func (w *windowed) tooLarge() error {
	hint := "compress it again with zstd --long=27 or less"
	if w.size < maxWindow {
		hint = "compress it again, without --long"
	}
	return fault.New(fault.Unsupported, "unpack archive", "", fmt.Sprintf("unpacking it takes a window of more than %d MiB of memory", w.size>>20), hint)
}

// collect gives back, around the use of much memory, what the collector would
// find later: up to then it would be needed as well.
func (w *windowed) collect() {
	if w.size > smallWindow {
		debug.FreeOSMemory()
	}
}

func (w *windowed) close() {
	if w.z != nil {
		w.z.Close()
		w.z = nil
	}
	if !w.taken {
		return
	}
	w.collect()
	w.taken = false
	w.windows.free.Release(w.size)
}
