package seccomp

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (seccomp(2)); little-endian machines only.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// reach is how far a conditional jump is let go: 255 less the instructions
// that making the targets of one jump reachable can put in between.
const reach = 250

// label is an instruction, as its place in the reversed program.
type label int

// assembler builds a program from its end to its start, so that every target
// of a jump, which classic BPF only has forwards, is known when it is emitted.
// No instruction but a load or an AND runs into the one after it.
type assembler struct {
	reversed []unix.SockFilter
	rets     map[uint32]label
	hops     map[label]label // the latest long jump to a label
}

// program is the finished program.
func (a *assembler) program() []unix.SockFilter {
	out := slices.Clone(a.reversed)
	slices.Reverse(out)
	return out
}

func (a *assembler) push(code uint16, jt, jf uint8, k uint32) label {
	a.reversed = append(a.reversed, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
	return label(len(a.reversed) - 1)
}

// ret is an instruction that ends the filter with value.
func (a *assembler) ret(value uint32) label {
	if l, ok := a.rets[value]; ok && len(a.reversed)-int(l) < reach {
		return l
	}
	if a.rets == nil {
		a.rets = map[uint32]label{}
	}
	a.rets[value] = a.push(unix.BPF_RET|unix.BPF_K, 0, 0, value)
	return a.rets[value]
}

// near is l, or an instruction in reach of a conditional jump that does the
// same: another ret, or a long jump.
func (a *assembler) near(l label) label {
	if len(a.reversed)-int(l) < reach {
		return l
	}
	if ins := a.reversed[l]; ins.Code == unix.BPF_RET|unix.BPF_K {
		return a.ret(ins.K)
	}
	if hop, ok := a.hops[l]; ok && len(a.reversed)-int(hop) < reach {
		return hop
	}
	if a.hops == nil {
		a.hops = map[label]label{}
	}
	a.hops[l] = a.push(unix.BPF_JMP|unix.BPF_JA, 0, 0, uint32(len(a.reversed)-1-int(l)))
	return a.hops[l]
}

// jump compares the accumulator with k.
func (a *assembler) jump(op uint16, k uint32, yes, no label) label {
	yes, no = a.near(yes), a.near(no)
	last := len(a.reversed) - 1
	return a.push(unix.BPF_JMP|op|unix.BPF_K, uint8(last-int(yes)), uint8(last-int(no)), k)
}

// load puts the word at offset into the accumulator and runs into the
// instruction emitted just before.
func (a *assembler) load(offset uint32) label {
	return a.push(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, offset)
}

// condition emits a 64-bit comparison of an argument. A narrow argument has
// only its lower half, and only that of the value is looked at, as in
// libseccomp: profiles write -1 with 64 bits.
func (a *assembler) condition(c condition, narrow bool, yes, no label) label {
	if c.negate {
		yes, no = no, yes
	}
	low := a.word(c, 0, yes, no)
	if narrow {
		return low
	}
	return a.upper(c, low, yes, no)
}

// word emits the comparison of one 32-bit word; half is 0 for the lower one.
// A word of which nothing is compared needs no code.
func (a *assembler) word(c condition, half uint32, yes, no label) label {
	mask, value := uint32(c.mask>>(32*half)), uint32(c.value>>(32*half))
	if mask == 0 {
		return yes // value has been masked and is 0
	}
	op := [...]uint16{opEqual: unix.BPF_JEQ, opGreater: unix.BPF_JGT, opGreaterEqual: unix.BPF_JGE}[c.op]
	a.jump(op, value, yes, no)
	if mask != 1<<32-1 {
		a.push(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0, 0, mask)
	}
	return a.load(offArgs + 8*uint32(c.arg) + 4*half)
}

// upper emits the comparison of the upper word, which decides alone unless it
// is equal.
func (a *assembler) upper(c condition, low, yes, no label) label {
	if c.op == opEqual {
		return a.word(c, 1, low, no)
	}
	value := uint32(c.value >> 32)
	differs := a.jump(unix.BPF_JEQ, value, low, no)
	a.jump(unix.BPF_JGT, value, yes, differs)
	return a.load(offArgs + 8*uint32(c.arg) + 4)
}
