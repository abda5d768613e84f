// Package fingerprint identifies seccomp profiles, for whoever keeps compiled
// ones. It stands apart because it links package crypto, whose initialisation is
// paid by every process.
package fingerprint

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Of identifies what seccomp.Compile makes of p: profiles with the same
// fingerprint have the same program on the same machine.
func Of(p *specs.LinuxSeccomp) [32]byte {
	b := layout{hash: sha256.New()}
	b.text(string(p.DefaultAction))
	b.errno(p.DefaultErrnoRet)
	b.text(p.ListenerPath)
	b.numbers(uint64(len(p.Architectures)), uint64(len(p.Flags)), uint64(len(p.Syscalls)))
	for _, a := range p.Architectures {
		b.text(string(a))
	}
	for _, f := range p.Flags {
		b.text(string(f))
	}
	for _, s := range p.Syscalls {
		b.text(string(s.Action))
		b.errno(s.ErrnoRet)
		b.numbers(uint64(len(s.Names)), uint64(len(s.Args)))
		for _, n := range s.Names {
			b.text(n)
		}
		for _, a := range s.Args {
			b.numbers(uint64(a.Index), a.Value, a.ValueTwo)
			b.text(string(a.Op))
		}
	}
	b.flush()
	var sum [32]byte
	b.hash.Sum(sum[:0])
	return sum
}

// layout hashes a profile laid out so that no two profiles look alike: every
// text and list has its length before it.
type layout struct {
	hash hash.Hash
	buf  [512]byte // collects what is short
	n    int
}

func (b *layout) text(s string) {
	b.numbers(uint64(len(s)))
	for len(s) > 0 {
		if b.n == len(b.buf) {
			b.flush()
		}
		n := copy(b.buf[b.n:], s)
		b.n, s = b.n+n, s[n:]
	}
}

func (b *layout) errno(e *uint) {
	if e == nil {
		b.numbers(1 << 63)
		return
	}
	b.numbers(uint64(*e))
}

func (b *layout) numbers(ns ...uint64) {
	for _, n := range ns {
		if b.n > len(b.buf)-8 {
			b.flush()
		}
		binary.LittleEndian.PutUint64(b.buf[b.n:], n)
		b.n += 8
	}
}

func (b *layout) flush() {
	b.hash.Write(b.buf[:b.n])
	b.n = 0
}
