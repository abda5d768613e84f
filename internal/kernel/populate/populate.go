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
	// room is what a command takes of the heap at most; with less of a huge page
	// left, the next one is used.
	room = 1 << 20
	// gap is more than there is between what the runtime has handed out.
	gap = 64 << 10
)

// skipped keeps what Heap skips from being put on a stack.
var skipped []byte

// Heap makes a huge page of what the Go heap hands out next, for a process that
// is about to fill 1 MiB of it: a command that ends when it is done. Where there
// is none to have, pages come by faults, as they do without the call.
//
// The runtime begins the heap somewhere (1.26), hands out the lowest that is
// free, and maps 4 MiB at a time, aligned to their size. So an object too large
// for gaps is where the rest of the heap follows. Where little of a huge page is
// left there, that is skipped, never touched, which has the next one mapped.
//
// madvise(2): MADV_COLLAPSE is there since Linux 6.1, and fails where nothing of
// the huge page has been touched; MADV_HUGEPAGE is for such. Both fail without
// CONFIG_TRANSPARENT_HUGEPAGE, and where an administrator has switched huge
// pages off.
func Heap() {
	skipped = make([]byte, gap)
	at := uintptr(unsafe.Pointer(&skipped[0]))
	page := at &^ (huge - 1)
	if rest := page + huge - at; rest < room {
		skipped = make([]byte, rest)
		page += huge
	}
	skipped = nil
	if _, _, e := unix.RawSyscall(unix.SYS_MADVISE, page, huge, unix.MADV_COLLAPSE); e != 0 {
		unix.RawSyscall(unix.SYS_MADVISE, page, huge, unix.MADV_HUGEPAGE)
	}
}
