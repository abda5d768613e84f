package seccomp

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// leaf says what happens to a call: the first rule that holds decides, else
// the default. Numbers with equal leaves share their code.
type leaf struct {
	rules  []rule
	ret    uint32 // when no rule holds
	narrow bool
}

// key is equal for equal leaves.
func (l leaf) key() string {
	if len(l.rules) == 0 {
		return strconv.FormatUint(uint64(l.ret), 16)
	}
	return fmt.Sprintf("%v", l)
}

// run is a stretch of numbers with one leaf, up to the next run.
type run struct {
	start uint32
	leaf  string // key of the leaf
}

// compiler gathers the leaves by key and emits them once.
type compiler struct {
	assembler
	profile *profile
	leaves  map[string]leaf
	labels  map[string]label
}

func compile(m machine, p *specs.LinuxSeccomp) ([]unix.SockFilter, uint, error) {
	checked, err := check(m, p)
	if err != nil {
		return nil, 0, err
	}
	flags, err := flagBits(p.Flags, checked.notify)
	if err != nil {
		return nil, 0, err
	}
	c := &compiler{profile: checked, leaves: map[string]leaf{}, labels: map[string]label{}}
	c.machine(m)
	if len(c.reversed) > maxInstructions {
		return nil, 0, fault.New(fault.Invalid, "compile seccomp profile", "",
			fmt.Sprintf("the filter has %d instructions, the kernel takes %d", len(c.reversed), maxInstructions), "use fewer conditions")
	}
	return c.program(), flags, nil
}

// machine emits the dispatch by architecture: an entry without any listed ABI
// has no code and ends where unknown architectures do.
func (c *compiler) machine(m machine) {
	next := c.ret(unix.SECCOMP_RET_KILL_PROCESS)
	for _, e := range slices.Backward(m) {
		if runs := c.runs(e); len(runs) > 0 {
			next = c.jump(unix.BPF_JEQ, e.audit, c.entry(runs), next)
		}
	}
	c.load(offArch)
}

// entry emits the search of one entry.
func (c *compiler) entry(runs []run) label {
	if len(runs) == 1 {
		return c.leaf(runs[0].leaf)
	}
	c.search(runs)
	return c.load(offNumber)
}

// search emits a balanced tree over runs. The number is in the accumulator.
func (c *compiler) search(runs []run) label {
	if len(runs) == 1 {
		return c.leaf(runs[0].leaf)
	}
	mid := len(runs) / 2
	above := c.search(runs[mid:])
	below := c.search(runs[:mid])
	return c.jump(unix.BPF_JGE, runs[mid].start, above, below)
}

// leaf emits a leaf unless an equal one exists.
func (c *compiler) leaf(key string) label {
	if l, ok := c.labels[key]; ok {
		return l
	}
	lf := c.leaves[key]
	next := c.ret(lf.ret)
	for _, r := range slices.Backward(lf.rules) {
		hit := c.ret(r.ret)
		for _, cond := range slices.Backward(r.when) {
			hit = c.condition(cond, lf.narrow, hit, next)
		}
		next = hit
	}
	c.labels[key] = next
	return next
}

// runs lays out the whole 32-bit number space of an entry; none when the
// profile lists none of its ABIs.
func (c *compiler) runs(e entry) []run {
	var out []run
	listed := false
	add := func(start uint32, l leaf) {
		key := l.key()
		c.leaves[key] = l
		if len(out) > 0 && out[len(out)-1].leaf == key {
			return
		}
		out = append(out, run{start, key})
	}
	var after leaf // of the number 2^32-1 when the last ABI is not listed
	for _, a := range e.abis {
		if !c.profile.arches[a.arch] {
			add(a.first, leaf{ret: unix.SECCOMP_RET_KILL_PROCESS})
			if a.last == 1<<32-1 {
				// A tracer skips a call by setting its number to -1 (ptrace(2)).
				add(a.last, after)
			}
			continue
		}
		listed = true
		after = c.numbers(a, add)
	}
	if !listed {
		return nil
	}
	return out
}

// numbers adds the runs of one ABI and returns the leaf of its last number
// that no rule names.
func (c *compiler) numbers(a abi, add func(uint32, leaf)) leaf {
	calls, newest := c.calls(a)
	known := leaf{ret: c.profile.ret}
	newer := leaf{ret: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	next := uint64(a.first)
	gap := func(end uint64) { // fills [next, end)
		if next < min(end, newest+1) {
			add(uint32(next), known)
		}
		if from := max(next, newest+1); from < end {
			add(uint32(from), newer)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(calls)) {
		gap(uint64(n))
		add(n, calls[n])
		next = uint64(n) + 1
	}
	gap(uint64(a.last) + 1)
	if newest >= uint64(a.last) {
		return known
	}
	return newer
}

// calls gathers the leaves of the calls the profile has rules for, and the
// number above which calls are answered with ENOSYS: that of the newest call
// the profile names at all, whatever its action.
func (c *compiler) calls(a abi) (leaves map[uint32]leaf, newest uint64) {
	rules := map[uint32][]rule{}
	named := false
	for _, entry := range c.profile.calls {
		for _, name := range entry.names {
			if n, ok := a.number(name); ok {
				rules[n] = append(rules[n], entry.rules...)
				if !privateARM(a, n) {
					newest, named = max(newest, uint64(n)), true
				}
			}
			if a.mux {
				muxed(a, name, entry.rules, rules)
			}
		}
	}
	if !named || c.profile.permissive {
		newest = uint64(a.last)
	}
	leaves = map[uint32]leaf{}
	for n, rs := range rules {
		if len(rs) > 0 {
			leaves[n] = c.decide(rs, a.narrow)
		}
	}
	return leaves, newest
}

// muxed adds to the rules of socketcall or ipc what holds for name through it.
func muxed(a abi, name string, named []rule, rules map[uint32][]rule) {
	through, value, ok := multiplexed(name)
	if !ok || len(named) != 1 || len(named[0].when) > 0 {
		return
	}
	n, _ := a.number(through)
	only := condition{op: opEqual, mask: 1<<64 - 1, value: value}
	rules[n] = append(rules[n], rule{[]condition{only}, named[0].ret})
}

// decide lets a rule without conditions win over all others, as libseccomp
// does (src/db.c, db_rule_add).
func (c *compiler) decide(rules []rule, narrow bool) leaf {
	for _, r := range rules {
		if len(r.when) == 0 {
			return leaf{ret: r.ret}
		}
	}
	return leaf{rules, c.profile.ret, narrow}
}

func privateARM(a abi, n uint32) bool { return a.arch == specs.ArchARM && n >= armPrivate }
