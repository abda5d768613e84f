package plan

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

var write = flag.Bool("update", false, "write the description of a layout that has none")

// TestLayout: whoever changes the layout of plans raises its number. What each
// number stands for is in testdata, and a description that is there is never
// written over.
func TestLayout(t *testing.T) {
	var b strings.Builder
	for _, v := range []any{Header{}, RawRlimit{}, RawScheduler{}, RawOp{}} {
		describe(&b, reflect.TypeOf(v))
	}
	constants(t, &b, "plan.go", "Call")
	constants(t, &b, "encode.go", "HasOOM")
	encoded, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	clear(encoded[:8]) // the magic has the number itself
	fmt.Fprintf(&b, "a plan of everything: %d bytes, %x\n", len(encoded), sha256.Sum256(encoded))
	path := fmt.Sprintf("testdata/layout-%d.txt", Layout-later)
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) && *write {
		err, want = os.WriteFile(path, []byte(b.String()), 0o644), []byte(b.String())
	}
	if err != nil {
		t.Fatalf("%v: -update describes a new layout", err)
	}
	if b.String() != string(want) {
		t.Errorf("the layout of plans has changed: raise Layout, then -update.\n%s\nLayout %d is\n%s", b.String(), Layout, want)
	}
}

func describe(b *strings.Builder, of reflect.Type) {
	fmt.Fprintf(b, "%s: %d bytes\n", of.Name(), of.Size())
	for i := range of.NumField() {
		f := of.Field(i)
		fmt.Fprintf(b, "  %d %s %s\n", f.Offset, f.Name, f.Type)
	}
}

// constants lists the group of constants that begins with first: their values
// are their places.
func constants(t *testing.T, b *strings.Builder, file, first string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST || group.Specs[0].(*ast.ValueSpec).Names[0].Name != first {
			continue
		}
		for i, s := range group.Specs {
			fmt.Fprintf(b, "%s %d\n", s.(*ast.ValueSpec).Names[0].Name, i)
		}
		return
	}
	t.Fatalf("%s has no constant %s", file, first)
}
