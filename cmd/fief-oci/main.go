// Command fief-oci is an OCI runtime: create, start, state, kill and delete
// containers of bundles, for podman, containerd, CRI-O and by hand. It starts
// them with the same launch plans as fief itself.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// app is the command line's global part.
type app struct {
	root      string
	logFile   string
	logFormat string
	debug     bool
	systemd   bool
}

// command is one verb: flags are declared on set, and run is called with what
// is left of the arguments.
type command struct {
	name, usage string
	make        func(a *app, set *flag.FlagSet) func(args []string) error
}

func commands() []command {
	return []command{
		{"create", "create [--bundle DIR] [--pid-file FILE] [--console-socket SOCKET] ID", createCommand},
		{"start", "start ID", startCommand},
		{"run", "run [--bundle DIR] [--detach] [--keep] ID", runCommand},
		{"state", "state ID", stateCommand},
		{"kill", "kill [--all] ID [SIGNAL]", killCommand},
		{"pause", "pause ID", pauseCommand},
		{"resume", "resume ID", resumeCommand},
		{"update", "update --resources FILE ID", updateCommand},
		{"delete", "delete [--force] ID", deleteCommand},
		{"exec", "exec [--process FILE] [--tty] [--detach] [--user UID[:GID]] [--cwd DIR] [--env N=V] ID COMMAND…", execCommand},
		{"list", "list [--quiet] [--format table|json]", listCommand},
		{"ps", "ps [--format table|json] ID", psCommand},
		{"spec", "spec [--bundle DIR]", specCommand},
		{"features", "features", featuresCommand},
	}
}

func main() {
	// Descriptors that the caller has left open are nobody's here, hooks least of all.
	unix.CloseRange(3, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC)
	if os.Args[0] == holderName {
		hold()
	}
	a := &app{}
	global := flag.NewFlagSet("fief-oci", flag.ContinueOnError)
	global.StringVar(&a.root, "root", "/run/fief-oci", "directory of the containers' state")
	global.StringVar(&a.logFile, "log", "", "write errors to this file too")
	global.StringVar(&a.logFormat, "log-format", "text", "text or json")
	global.BoolVar(&a.debug, "debug", false, "print the launch plan of a failed start")
	global.BoolVar(&a.systemd, "systemd-cgroup", false, "have systemd make the cgroup: cgroupsPath is SLICE:PREFIX:NAME")
	version := global.Bool("version", false, "print the version")
	global.Usage = func() { usage(global) }
	if err := global.Parse(os.Args[1:]); err != nil {
		os.Exit(125)
	}
	if *version {
		fmt.Printf("fief-oci version %s\nspec: %s\n", buildVersion, specVersion)
		return
	}
	a.exit(a.dispatch(global.Args()))
}

func usage(global *flag.FlagSet) {
	fmt.Fprintln(os.Stderr, "usage: fief-oci [options] COMMAND")
	for _, c := range commands() {
		fmt.Fprintln(os.Stderr, "  "+c.usage)
	}
	global.PrintDefaults()
}

func (a *app) dispatch(args []string) error {
	if len(args) == 0 {
		return fault.New(fault.Invalid, "run", "", "no command given", "see fief-oci --help")
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		set := flag.NewFlagSet(c.name, flag.ContinueOnError)
		set.Usage = func() {
			fmt.Fprintln(os.Stderr, "usage: fief-oci "+c.usage)
			set.PrintDefaults()
		}
		run := c.make(a, set)
		if err := set.Parse(args[1:]); err != nil {
			os.Exit(125)
		}
		return run(set.Args())
	}
	return fault.New(fault.Invalid, "run command", args[0], "not known", "see fief-oci --help")
}

// exitStatus is an error that only carries the exit code of a container.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exit prints err where the caller looks for it and ends the process.
func (a *app) exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	if code, ok := err.(exitStatus); ok {
		os.Exit(int(code))
	}
	fmt.Fprintln(os.Stderr, "fief-oci:", err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", hint)
	}
	if a.logFile != "" {
		a.log(err)
	}
	code := fault.ExitCodeOf(err)
	if code == 125 {
		code = 1 // what callers of OCI runtimes expect of a failed command
	}
	os.Exit(code)
}

// log appends err to the log file in the format of runc, which podman and
// containerd read.
func (a *app) log(err error) {
	f, openErr := os.OpenFile(a.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if openErr != nil {
		return
	}
	defer f.Close()
	if a.logFormat != "json" {
		fmt.Fprintf(f, "time=%q level=error msg=%q\n", time.Now().Format(time.RFC3339), err.Error())
		return
	}
	json.NewEncoder(f).Encode(map[string]string{"level": "error", "msg": err.Error(), "time": time.Now().Format(time.RFC3339)})
}
