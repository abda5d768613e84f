// Package script runs the txtar scripts in testdata: each reads like a bug
// report, has a daemon of its own with an image called busybox, and uses the
// real binaries.
package script

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"fief/internal/testenv"
)

func TestScripts(t *testing.T) {
	testenv.NeedRoot(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			tb := env.T().(testing.TB)
			d := testenv.Start(tb)
			d.Busybox(tb)
			env.Setenv("FIEF_HOST", d.Host)
			env.Setenv("DOCKER_HOST", d.Host)
			env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, "docker"))
			env.Setenv("DATA", d.Dir+"/data")
			env.Setenv("RUN", d.Dir+"/run")
			env.Setenv("PATH", testenv.Bin(tb)+":"+os.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
	})
}
