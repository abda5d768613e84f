package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The budgets. They are hard caps against tails, not a style.
const (
	maxFileLines = 800
	maxFuncLines = 100
	maxParams    = 6
	maxInterface = 16
)

// longFuncs may be longer than maxFuncLines, each with its reason.
var longFuncs = map[string]string{}

// TestEachPackageSaysWhatItIs wants exactly one package comment.
func TestEachPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		fset := token.NewFileSet()
		var with []string
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				with = append(with, name)
			}
		}
		if len(with) > 1 {
			t.Errorf("%s has several package comments: %v", p.ImportPath, with)
		}
	}
}

// TestShape walks the code for what makes a codebase hard to live in: start-up
// magic, catch-all packages, and the long tail of big files and functions.
func TestShape(t *testing.T) {
	for _, p := range list(t) {
		for _, bad := range []string{"util", "utils", "common", "helper", "helpers", "types", "misc"} {
			if slices.Contains(strings.Split(p.ImportPath, "/"), bad) {
				t.Errorf("%s: a package called %q owns nothing in particular", p.ImportPath, bad)
			}
		}
		for _, name := range p.GoFiles {
			checkFile(t, filepath.Join(p.Dir, name))
		}
	}
}

func checkFile(t *testing.T, path string) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	if ast.IsGenerated(f) {
		return
	}
	lines := func(n ast.Node) int { return fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1 }
	if n := fset.File(f.Pos()).LineCount(); n > maxFileLines {
		t.Errorf("%s has %d lines (at most %d)", path, n, maxFileLines)
	}
	for _, imp := range f.Imports {
		if imp.Name != nil && imp.Name.Name == "_" && imp.Path.Value != `"embed"` && imp.Path.Value != `"unsafe"` {
			t.Errorf("%s imports %s for its effect", path, imp.Path.Value)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch d := n.(type) {
		case *ast.FuncDecl:
			checkFunc(t, path, d, lines(d))
		case *ast.InterfaceType:
			if n := d.Methods.NumFields(); n > maxInterface {
				t.Errorf("%s: an interface of %d methods (at most %d)", path, n, maxInterface)
			}
		}
		return true
	})
}

func checkFunc(t *testing.T, path string, d *ast.FuncDecl, n int) {
	if d.Name.Name == "init" && d.Recv == nil {
		t.Errorf("%s: func init runs unasked", path)
	}
	if n > maxFuncLines && longFuncs[d.Name.Name] == "" {
		t.Errorf("%s: %s has %d lines (at most %d)", path, d.Name.Name, n, maxFuncLines)
	}
	if p := d.Type.Params.NumFields(); p > maxParams {
		t.Errorf("%s: %s takes %d parameters (at most %d)", path, d.Name.Name, p, maxParams)
	}
}
