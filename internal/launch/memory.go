package launch

import (
	"sync"

	"golang.org/x/sys/unix"

	"fief/internal/words/plan"
)

// memory is what a plan is made in. A Compiler uses one again for the next plan
// once the last one has been released: half of the cost of a plan in fresh
// memory is the first touching of its pages.
type memory struct {
	// Operations and arguments of all steps lie one after another: a plan has
	// hundreds, and an allocation each would cost more than all the rest.
	ops   []plan.Op
	args  []plan.Arg
	steps []plan.Step

	// Arguments that do not differ between plans.
	hows  map[uint64]plan.Arg // struct open_how by its flags
	attrs map[attrKey]plan.Arg

	mu      sync.Mutex
	encoder plan.Encoder // guarded by mu
	encoded bool         // guarded by mu: the encoder's bytes are in use
}

// attrKey is a struct mount_attr and the text it is printed as.
type attrKey struct {
	attr unix.MountAttr
	text string
}

// What a container's plan takes; more is grown.
const (
	usualOps   = 640
	usualArgs  = 2048
	usualSteps = 96
)

// maxSpare is how many memories are kept, some 200 KiB each: as many plans are
// made at once without new memory.
const maxSpare = 4

func newMemory() *memory {
	return &memory{
		ops: make([]plan.Op, 0, usualOps), args: make([]plan.Arg, 0, usualArgs), steps: make([]plan.Step, 0, usualSteps),
		hows: map[uint64]plan.Arg{}, attrs: map[attrKey]plan.Arg{},
	}
}

// Encode implements plan.Memory. Only the first form of a plan lies in m.
func (m *memory) Encode(p *plan.Plan) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.encoded {
		return new(plan.Encoder).Encode(p)
	}
	m.encoded = true
	return m.encoder.Encode(p)
}

// newBuilder takes spare memory for a plan, or new.
func (c *Compiler) newBuilder(o Options) *builder {
	var m *memory
	c.mu.Lock()
	if n := len(c.spare); n > 0 {
		m, c.spare = c.spare[n-1], c.spare[:n-1]
	}
	c.mu.Unlock()
	if m == nil {
		m = newMemory()
	}
	b := &builder{opt: o, memory: m}
	b.plan.Steps, b.plan.Memory = m.steps[:0], m
	return b
}

// Release takes back the memory of a plan of this compiler, which becomes
// empty: neither it, nor a copy of it, nor what it was encoded to may be used
// afterwards. A plan that is not released is collected as garbage.
func (c *Compiler) Release(p *plan.Plan) {
	m, ok := p.Memory.(*memory)
	if !ok {
		return
	}
	m.steps = p.Steps
	*p = plan.Plan{}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spare) < maxSpare && cap(m.ops) <= 4*usualOps && cap(m.args) <= 4*usualArgs && len(m.attrs) < 4*usualSteps {
		m.forget()
		c.spare = append(c.spare, m)
	}
}

// forget drops what the plan referred to, its environment among it.
func (m *memory) forget() {
	clear(m.ops)
	clear(m.args)
	clear(m.steps)
	m.ops, m.args, m.steps = m.ops[:0], m.args[:0], m.steps[:0]
	m.encoder.Forget()
	m.encoded = false
}
