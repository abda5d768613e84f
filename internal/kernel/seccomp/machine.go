package seccomp

import (
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// x32Bit distinguishes the calls of x32 from those of x86_64, which have the
// same AUDIT_ARCH (arch/x86/include/uapi/asm/unistd.h, __X32_SYSCALL_BIT).
const x32Bit = 1 << 30

// armPrivate is the first number of the calls private to 32-bit ARM, far above
// the others (arch/arm/include/uapi/asm/unistd.h, __ARM_NR_BASE).
const armPrivate = 0x0f0000

// abi is one way into the kernel: a set of system call numbers.
type abi struct {
	arch  specs.Arch
	table string
	first uint32 // the numbers of the ABI are [first, last]
	last  uint32
	// narrow: registers have 32 bits and the kernel clears the upper half of
	// the arguments it shows to a filter. x32 passes whole 64-bit registers.
	narrow bool
	// mux: the call's family may also be reached through socketcall and ipc.
	mux bool
}

// entry is what a filter can tell apart by seccomp_data.arch.
type entry struct {
	audit uint32
	abis  []abi // in order of their numbers, without gaps
}

// machine is a kernel's entries, the most used one first.
type machine []entry

// machineOf gives the entries of a 64-bit kernel by GOARCH.
func machineOf(goarch string) (machine, bool) {
	switch goarch {
	case "amd64":
		return machine{
			{unix.AUDIT_ARCH_X86_64, []abi{
				{arch: specs.ArchX86_64, table: tableX8664, last: x32Bit - 1},
				{arch: specs.ArchX32, table: tableX32, first: x32Bit, last: 1<<32 - 1},
			}},
			{unix.AUDIT_ARCH_I386, []abi{{arch: specs.ArchX86, table: tableI386, last: 1<<32 - 1, narrow: true, mux: true}}},
		}, true
	case "arm64":
		return machine{
			{unix.AUDIT_ARCH_AARCH64, []abi{{arch: specs.ArchAARCH64, table: tableAArch64, last: 1<<32 - 1}}},
			{unix.AUDIT_ARCH_ARM, []abi{{arch: specs.ArchARM, table: tableARM, last: 1<<32 - 1, narrow: true}}},
		}, true
	}
	return nil, false
}

// native is the ABI that every profile covers, listed or not.
func (m machine) native() specs.Arch { return m[0].abis[0].arch }

// number finds the number of a call by name.
func (a abi) number(name string) (uint32, bool) {
	n, ok := lookup(a.table, name)
	return n + a.first, ok
}

// lookup searches a sorted table of lines "name number".
func lookup(table, name string) (uint32, bool) {
	lo, hi := 1, len(table) // the table begins with a newline
	for lo < hi {
		mid := lo + (hi-lo)/2
		start := strings.LastIndexByte(table[:mid], '\n') + 1
		end := start + strings.IndexByte(table[start:], '\n')
		line := table[start:end]
		space := strings.IndexByte(line, ' ')
		switch strings.Compare(name, line[:space]) {
		case -1:
			hi = start
		case 1:
			lo = end + 1
		default:
			n, err := strconv.ParseUint(line[space+1:], 10, 32)
			return uint32(n), err == nil
		}
	}
	return 0, false
}

// anyHas reports whether any architecture has a call of that name.
func anyHas(name string) bool {
	for _, table := range [...]string{tableX8664, tableI386, tableARM, tableAArch64, tableX32, tableOther} {
		if _, ok := lookup(table, name); ok {
			return true
		}
	}
	return false
}

// multiplexed gives the call and the value of its first argument by which
// 32-bit x86 reaches name too (include/uapi/linux/net.h, ipc.h).
func multiplexed(name string) (through string, value uint64, ok bool) {
	const sockets = " socket bind connect listen accept getsockname getpeername socketpair send recv" +
		" sendto recvfrom shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg "
	if at := strings.Index(sockets, " "+name+" "); at >= 0 && name != "" && !strings.Contains(name, " ") {
		return "socketcall", uint64(strings.Count(sockets[:at+1], " ")), true
	}
	switch name {
	case "semop", "semget", "semctl", "semtimedop":
		return "ipc", 1 + uint64(strings.Index("semop     semget    semctl    semtimedop", name)/10), true
	case "msgsnd", "msgrcv", "msgget", "msgctl":
		return "ipc", 11 + uint64(strings.Index("msgsnd    msgrcv    msgget    msgctl", name)/10), true
	case "shmat", "shmdt", "shmget", "shmctl":
		return "ipc", 21 + uint64(strings.Index("shmat     shmdt     shmget    shmctl", name)/10), true
	}
	return "", 0, false
}
