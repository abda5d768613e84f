package cli_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"fief/internal/cli"
	"fief/internal/cli/fast"
	"fief/internal/door/native"
	"fief/internal/door/native/nativetest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fief": fief})
}

// fief is what cmd/fief does.
func fief() {
	words := os.Args[1:]
	if code, handled := fast.Run(words, cli.Reconnect); handled {
		os.Exit(code)
	}
	os.Exit(cli.Main(words, "9.9.9"))
}

// daemon serves an engine at the socket of a script. It can be stopped and
// started while containers go on.
type daemon struct {
	socket string
	engine *nativetest.Engine
	stop   context.CancelFunc
	done   sync.WaitGroup
}

func (d *daemon) start() error {
	l, err := native.Listen(d.socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	d.done.Go(func() { _ = native.Serve(ctx, l, d.engine) })
	return nil
}

func (d *daemon) end() {
	d.stop()
	d.done.Wait()
}

type daemonKey struct{}

func TestScripts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: the native socket answers root only")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			d := &daemon{socket: filepath.Join(env.WorkDir, "native.sock"), engine: nativetest.New()}
			env.Setenv("FIEF_HOST", "unix://"+filepath.Join(env.WorkDir, "docker.sock"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("GODEBUG", "") // a test must not see what is set for measurements
			env.Values[daemonKey{}] = d
			env.Defer(func() { d.end(); d.engine.Close() })
			return d.start()
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"daemon": daemonCommand,
			"status": statusCommand,
		},
	})
}

// daemonCommand is `daemon stop`, `daemon start` and `daemon restart`.
func daemonCommand(ts *testscript.TestScript, _ bool, args []string) {
	d := ts.Value(daemonKey{}).(*daemon)
	if args[0] != "start" {
		d.end()
	}
	if args[0] != "stop" {
		ts.Check(d.start())
	}
}

// statusCommand is `status CODE PROGRAM ARG...`: the program must end with
// exactly this exit status.
func statusCommand(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, not %d", got, want)
	}
}
