// Package script runs the txtar scripts in testdata: each reads like a bug
// report, has a daemon of its own with an image called busybox, and uses the
// real binaries.
package script

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"fief/internal/kernel/mnt"
	"fief/internal/kernel/userns"
	"fief/internal/testenv"
	"fief/internal/words/idmap"
)

func TestScripts(t *testing.T) {
	testenv.NeedRoot(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"until": until},
		Condition:           able,
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

// able tells scripts what the kernel can.
func able(name string) (bool, error) {
	switch name {
	case "mounts-on-detached":
		return mountsOnDetached()
	case "idmapped-tmpfs":
		return idmappedTmpfs()
	}
	return false, fmt.Errorf("no condition is called %q", name)
}

// idmappedTmpfs: since Linux 6.3 a tmpfs is shown through a map.
func idmappedTmpfs() (bool, error) {
	m, err := idmap.New(idmap.Span{In: 0, Out: 700000, N: 65536})
	if err != nil {
		return false, err
	}
	ns, err := userns.New(idmap.Pair{UID: m, GID: m})
	if err != nil {
		return false, err
	}
	defer ns.Close()
	fs, err := mnt.NewFS("tmpfs").Mount(0)
	if err != nil {
		return false, err
	}
	defer fs.Close()
	return mnt.Idmap(fs, ns, false) == nil, nil
}

// mountsOnDetached: since Linux 6.15 a mount is attached on another that is
// attached nowhere.
func mountsOnDetached() (bool, error) {
	below, err := mnt.NewFS("tmpfs").Mount(0)
	if err != nil {
		return false, err
	}
	defer below.Close()
	above, err := mnt.NewFS("tmpfs").Mount(0)
	if err != nil {
		return false, err
	}
	defer above.Close()
	return mnt.Attach(above, below) == nil, nil
}

// until PATTERN COMMAND... runs a command, whatever it ends with, until what it
// prints matches, for two minutes: what happens in the background of a machine
// that has other things to do.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND [ARG...]")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if pattern.MatchString(ts.ReadFile("stdout")) || pattern.MatchString(ts.ReadFile("stderr")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no match for %q in two minutes; the last time: %v", args[0], err)
		}
	}
}
