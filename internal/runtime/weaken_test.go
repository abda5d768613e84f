package runtime_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/plan"
)

// attempt is an attack on a start: it carries the plan out, or one that somebody
// has weakened, and says what harm was done, "" for none.
type attempt func(t *testing.T, weaken func(*plan.Plan)) string

// proves wants an attack to do no harm, and to do some when the plan lacks what
// stands against it: else the first half would prove nothing.
func proves(t *testing.T, try attempt, weaken func(*plan.Plan)) {
	t.Helper()
	if harm := try(t, func(*plan.Plan) {}); harm != "" {
		t.Errorf("harm: %s", harm)
	}
	if harm := try(t, weaken); harm == "" {
		t.Error("the weakened plan does no harm either: this attack proves nothing")
	}
}

// stepOf finds a step by its verb and the beginning of its object.
func stepOf(t testing.TB, p *plan.Plan, verb, object string) int {
	t.Helper()
	i := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return s.Verb == verb && strings.HasPrefix(s.Object, object) })
	if i < 0 {
		t.Fatalf("no step %s %s in\n%s", verb, object, p.String())
	}
	return i
}

// insert puts a step before the i-th.
func insert(p *plan.Plan, i int, s plan.Step) {
	p.Steps = slices.Insert(slices.Clone(p.Steps), i, s)
}

// remove takes the i-th step out and returns it.
func remove(p *plan.Plan, i int) plan.Step {
	s := p.Steps[i]
	p.Steps = slices.Delete(slices.Clone(p.Steps), i, i+1)
	return s
}

// keepOps leaves only the first n operations of a step.
func keepOps(p *plan.Plan, i, n int) {
	p.Steps = slices.Clone(p.Steps)
	p.Steps[i].Ops = p.Steps[i].Ops[:n:n]
}

// opOf finds the n-th system call of a number in a step.
func opOf(t testing.TB, s *plan.Step, nr uint32, n int) *plan.Op {
	t.Helper()
	for i := range s.Ops {
		if o := &s.Ops[i]; o.Kind == plan.Call && o.Nr == nr {
			if n == 0 {
				return o
			}
			n--
		}
	}
	t.Fatalf("no such call in step %s %s", s.Verb, s.Object)
	return nil
}

func call(nr uint32, args ...plan.Arg) plan.Op { return plan.Op{Nr: nr, Name: "call", Args: args} }

// slotOf finds a slot of a plan by its name.
func slotOf(t testing.TB, p *plan.Plan, name string) plan.Slot {
	t.Helper()
	i := slices.Index(p.Slots, name)
	if i < 0 {
		t.Fatalf("no slot %s", name)
	}
	return plan.Slot(i + 1)
}

// try makes the plan of a spec, weakens it and carries it out.
func (b *box) try(s *specs.Spec, weaken func(*plan.Plan)) (out string, code int, err error) {
	b.t.Helper()
	p, err := compiler().Container(s, b.opt)
	if err != nil {
		return "", 0, err
	}
	weaken(&p)
	return b.start(&p)
}

// hostRoot makes a container without a user namespace and with every capability
// there is: what it is not kept from it can do.
func hostRoot(t *testing.T, b *box, s *specs.Spec) {
	t.Helper()
	err := filepath.Walk(b.root, func(p string, _ os.FileInfo, _ error) error { return os.Lchown(p, 0, 0) })
	if err != nil {
		t.Fatal(err)
	}
	unmapped(s)
	powerful(t, s)
	names, _ := capsHere(t)
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
}

// pivotFirst makes the root file system the root before anything is mounted in
// it: the host's tree then lies on it until the end.
func pivotFirst(t testing.TB) func(*plan.Plan) {
	return func(p *plan.Plan) {
		t.Helper()
		at := stepOf(t, p, "root", "rootfs")
		s := p.Steps[at]
		early := plan.Step{Verb: "pivot", Ops: slices.Clone(s.Ops[:2])}
		s.Ops = s.Ops[2:]
		p.Steps = slices.Clone(p.Steps)
		p.Steps[at] = s
		insert(p, stepOf(t, p, "attach", "rootfs")+1, early)
	}
}

// files lists what is below a directory.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var list []string
	filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, strings.TrimPrefix(p, dir)+" "+st.Mode().String())
		return nil
	})
	return strings.Join(list, "\n")
}

// plainOpen is an openat2 without any restriction.
func plainOpen(flags uint64) (plan.Arg, plan.Arg) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC}
	raw := make([]byte, unix.SizeofOpenHow)
	for i := range 8 {
		raw[i] = byte(how.Flags >> (8 * i))
	}
	return plan.Bytes(raw, "plain"), plan.Int(unix.SizeofOpenHow)
}
