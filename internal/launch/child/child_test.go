package child

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unsafe"

	"fief/internal/words/plan"
)

// TestChildCallsNothing proves from the source that the code between fork and
// exec calls only raw system calls, unsafe's pseudo-functions and functions of
// its own file, and that each of those is nosplit and norace: nothing there can
// grow a stack, allocate by a call, or take a lock.
func TestChildCallsNothing(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "child.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		own[f.Name.Name] = true
		for _, pragma := range []string{"//go:nosplit", "//go:norace"} {
			if f.Doc == nil || !hasLine(f.Doc, pragma) {
				t.Errorf("%s lacks %s", f.Name.Name, pragma)
			}
		}
	}
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
			t.Error("package variables are forbidden: their memory may be in any state")
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt, *ast.DeferStmt, *ast.SendStmt, *ast.SelectStmt, *ast.FuncLit, *ast.CompositeLit, *ast.RangeStmt:
			if lit, ok := n.(*ast.CompositeLit); ok && len(lit.Elts) == 0 {
				return true // unsafe.Sizeof(T{})
			}
			t.Errorf("%T is forbidden in the child", n)
		case *ast.CallExpr:
			if name := callee(n); !own[name] && !allowed[name] {
				t.Errorf("the child calls %s", name)
			}
		}
		return true
	})
}

var allowed = map[string]bool{
	"clone": true, "syscall.Errno": true, // in the parent
	"split": true, "beget": true, // assembly, as clone is: see TestEntry
	"syscall.RawSyscall6": true, "unsafe.Pointer": true, "unsafe.Sizeof": true, "unsafe.Add": true, // conversions:
	"uintptr": true, "uint64": true, "uint32": true, "int32": true, "int": true, "*rawOp": true, "*int32": true, "*Frame": true, "*uint32": true, "*uint64": true, "*unsafe.Pointer": true,
}

func hasLine(doc *ast.CommentGroup, line string) bool {
	for _, c := range doc.List {
		if c.Text == line {
			return true
		}
	}
	return false
}

func callee(call *ast.CallExpr) string {
	fun := call.Fun
	if p, ok := fun.(*ast.ParenExpr); ok {
		fun = p.X
	}
	star := ""
	if p, ok := fun.(*ast.StarExpr); ok {
		star, fun = "*", p.X
	}
	switch f := fun.(type) {
	case *ast.Ident:
		return star + f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return star + x.Name + "." + f.Sel.Name
		}
	}
	return "something indirect"
}

// TestMachineCode looks for what the compiler may add: calls into the runtime,
// and uses of variables. Failing bounds checks are let be; they are never
// reached.
func TestMachineCode(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("tool: go")
	}
	out, err := exec.Command(tool, "build", "-gcflags=-S", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	header := regexp.MustCompile(`^(\S+) STEXT`)
	call := regexp.MustCompile(`\tCALL\t(\S+)`)
	symbol := regexp.MustCompile(`\t([A-Z]+)\t.*?([^\s,$]+)\(SB\)`)
	function, seen := "", 0
	for _, line := range strings.Split(string(out), "\n") {
		if h := header.FindStringSubmatch(line); h != nil {
			function = h[1]
		}
		if m := symbol.FindStringSubmatch(line); m != nil && strings.HasPrefix(function, "fief/internal/launch/child.") && !harmless[m[1]] &&
			!strings.HasPrefix(m[2], "fief/internal/launch/child.") {
			t.Errorf("%s uses %s: %s", function, m[2], m[1])
		}
		c := call.FindStringSubmatch(line)
		if c == nil || !strings.HasPrefix(function, "fief/internal/launch/child.") {
			continue // compiler-made functions of types
		}
		seen++
		if name := c[1]; !strings.HasPrefix(name, "fief/internal/launch/child.") && name != "syscall.RawSyscall6(SB)" &&
			name != "internal/runtime/syscall/linux.Syscall6(SB)" && !strings.HasPrefix(name, "runtime.panic") {
			t.Errorf("%s calls %s", function, name)
		}
	}
	if seen == 0 {
		t.Skip("tool: no assembly listing")
	}
}

// harmless are what may name a symbol: pseudo-instructions, and calls, which are
// looked at by themselves. Constants and jump tables of the package's own
// functions are named after it.
var harmless = map[string]bool{"TEXT": true, "FUNCDATA": true, "PCDATA": true, "CALL": true}

// TestEntry: the assembly by which the child comes alive, and the compiler's
// way from there into Go, in the linked program: they use the thread-local
// storage that the child is given, their stack, and no variable, and call
// nothing but run.
func TestEntry(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("tool: go")
	}
	program := filepath.Join(t.TempDir(), "fief-mon")
	if out, err := exec.Command(tool, "build", "-o", program, "fief/cmd/fief-mon").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(tool, "tool", "objdump", "-s", `^fief/internal/launch/child\.(clone|run|split|beget)(\.abi0)?$`, program).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	function, calls, entries := "", map[string][]string{}, map[string]int{}
	for _, line := range strings.Split(string(out), "\n") {
		if f, ok := strings.CutPrefix(line, "TEXT "); ok {
			function, _, _ = strings.Cut(f, "(SB)")
			function = strings.TrimPrefix(function, "fief/internal/launch/child.")
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[1], "0x") {
			continue
		}
		text := strings.Join(fields[3:], " ")
		if target, ok := strings.CutSuffix(text, "(SB)"); ok {
			op, name, _ := strings.Cut(target, " ")
			if op != "CALL" && op != "JMP" {
				t.Errorf("%s uses a variable: %s", function, text)
			}
			calls[function] = append(calls[function], strings.TrimPrefix(name, "fief/internal/launch/child."))
		} else if (strings.HasPrefix(function, "clone") || strings.HasPrefix(function, "beget")) && strings.Contains(text, "child.run.abi0(SB)") {
			entries[strings.TrimSuffix(function, ".abi0")]++ // called by its address: it runs on another stack
		} else if strings.Contains(text, "(SB)") || strings.Contains(text, "(IP)") && function != "run" { // run's jump table is a constant
			t.Errorf("%s uses a variable: %s", function, text)
		}
	}
	if n := len(calls["split"]) + len(calls["split.abi0"]); n != 0 || !strings.Contains(string(out), "child.split") {
		t.Errorf("the second fork makes %d calls\n%s", n, out)
	}
	for _, name := range []string{"clone", "beget"} {
		if n := len(calls[name]) + len(calls[name+".abi0"]); n != 0 || entries[name] != 1 {
			t.Errorf("%s, where a process comes alive, makes %d calls and takes %d addresses\n%s", name, n, entries[name], out)
		}
	}
	for _, name := range calls["run.abi0"] {
		if name != "run" {
			t.Errorf("the way to run calls %s", name)
		}
	}
}

// TestLayout: the child's view of an operation is the plan's.
func TestLayout(t *testing.T) {
	var a rawOp
	var b plan.RawOp
	for name, same := range map[string]bool{
		"size":      unsafe.Sizeof(a) == unsafe.Sizeof(b),
		"args":      unsafe.Offsetof(a.args) == unsafe.Offsetof(b.Args),
		"nr":        unsafe.Offsetof(a.nr) == unsafe.Offsetof(b.Nr),
		"step":      unsafe.Offsetof(a.step) == unsafe.Offsetof(b.Step),
		"call":      unsafe.Offsetof(a.call) == unsafe.Offsetof(b.Call),
		"skip":      unsafe.Offsetof(a.skip) == unsafe.Offsetof(b.Skip),
		"onIgnored": unsafe.Offsetof(a.onIgnored) == unsafe.Offsetof(b.OnIgnored),
		"save":      unsafe.Offsetof(a.save) == unsafe.Offsetof(b.Save),
		"kind":      unsafe.Offsetof(a.kind) == unsafe.Offsetof(b.Kind),
		"slots":     unsafe.Offsetof(a.slots) == unsafe.Offsetof(b.Slots),
		"addresses": unsafe.Offsetof(a.addresses) == unsafe.Offsetof(b.Addresses),
		"signed":    unsafe.Offsetof(a.signed) == unsafe.Offsetof(b.Signed),
		"ignore":    unsafe.Offsetof(a.ignore) == unsafe.Offsetof(b.Ignore),
		"remember":  unsafe.Offsetof(a.remember) == unsafe.Offsetof(b.Remember),
		"positive":  unsafe.Offsetof(a.positive) == unsafe.Offsetof(b.Positive),
		"kinds": kindCall == int(plan.Call) && kindCloseOthers == int(plan.CloseOthers) && kindResetInherited == int(plan.ResetInherited) &&
			kindDropBounding == int(plan.DropBounding) && kindPatch == int(plan.Patch) && kindTestMem == int(plan.TestMem) &&
			kindTestSlot == int(plan.TestSlot) && kindCopy == int(plan.Copy) && kindFail == int(plan.Fail) &&
			kindForget == int(plan.Forget) && kindCloseAll == int(plan.CloseAll) && kindFork == int(plan.Fork) && kindSpawn == int(plan.Spawn),
	} {
		if !same {
			t.Errorf("%s differs", name)
		}
	}
}
