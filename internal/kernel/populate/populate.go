// Package populate makes pages of memory before they are used: one call that
// makes a thousand costs a fraction of a thousand page faults, most of all in
// virtual machines, where each fault may be a trip to the hypervisor.
package populate

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// huge is the size of a huge page of x86-64, and of arm64 with small pages of
	// 4 KiB; with others madvise refuses the range.
	huge = 2 << 20
	// large is what no processor's cache of the heap holds (a quarter of its 64
	// pages of 8 KiB, pageCachePages of runtime/mpagecache.go), small the most that
	// comes out of one.
	large = 128 << 10
	small = large - 8<<10
	// caches is in how many objects a whole cache is used up.
	caches = 512/120 + 1
)

// kept keeps what Heap asks for from being put on a stack.
var kept []byte

// Heap makes a huge page of what the Go heap hands out next, for a process that
// is about to fill 1 MiB of it: a command that ends when it is done. Where there
// is none to have, pages come by faults, as they do without the call.
//
// The runtime begins the heap anywhere in 64 MiB (1.26) and hands out what is
// lowest, but small objects from a piece that the processor took earlier. So both
// are used up to the end of the huge page that the heap has reached, untouched,
// and the next one, of which nothing has been touched either, becomes one at the
// first touch. MADV_COLLAPSE could take the pages in use as well; it waits for a
// worker on every processor first (lru_add_drain_all in madvise_collapse of
// mm/khugepaged.c), 9 ms where they are busy.
//
// madvise(2): MADV_HUGEPAGE fails without CONFIG_TRANSPARENT_HUGEPAGE, and does
// nothing where an administrator has switched huge pages off.
func Heap() {
	next := (reserve(large)+large)&^(huge-1) + huge
	for range caches {
		if reserve(small) >= next {
			break
		}
	}
	if rest := next - reserve(large); rest < huge {
		reserve(rest)
	}
	kept = nil
	unix.RawSyscall(unix.SYS_MADVISE, next, huge, unix.MADV_HUGEPAGE)
}

// reserve is where the heap has n bytes that nobody touches.
func reserve(n uintptr) uintptr {
	kept = make([]byte, n)
	return uintptr(unsafe.Pointer(unsafe.SliceData(kept)))
}
