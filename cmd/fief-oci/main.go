// Command fief-oci is an OCI runtime: create, start, state, kill and delete
// containers of bundles, for podman, containerd, CRI-O and by hand. It starts
// them with the same launch plans as fief itself.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/populate"
	"fief/internal/words/fault"
)

// app is the command line's global part.
type app struct {
	root      string
	logFile   string
	logFormat string
	debug     bool
	groupless bool // containers are left in the caller's cgroup
	inherited int  // descriptors from 3 on that the caller has left open
	systemd   bool // systemd makes the containers' cgroups
}

// command is one verb: flags are declared on set, and run is called with what
// is left of the arguments. Those of a program end with the first word that is
// none of the verb's own flags.
type command struct {
	name, usage string
	make        func(a *app, set *flag.FlagSet) func(args []string) error
	program     bool
}

func commands() []command {
	return []command{
		{"create", "create [options] ID", createCommand, false},
		{"start", "start ID", startCommand, false},
		{"run", "run [options] ID", runCommand, false},
		{"state", "state ID", stateCommand, false},
		{"kill", "kill [options] ID [SIGNAL]", killCommand, false},
		{"pause", "pause ID", pauseCommand, false},
		{"resume", "resume ID", resumeCommand, false},
		{"update", "update [options] ID", updateCommand, false},
		{"delete", "delete [options] ID", deleteCommand, false},
		{"exec", "exec [options] ID COMMAND…", execCommand, true},
		{"list", "list [options]", listCommand, false},
		{"ps", "ps [options] ID [PS-OPTION…]", psCommand, true},
		{"events", "events [options] ID", eventsCommand, false},
		{"spec", "spec [options]", specCommand, false},
		{"features", "features", featuresCommand, false},
	}
}

// absent are runc's commands that are not there, whatever their options say.
// "checkpoint --help" has to fail as well: that is how podman finds out whether a
// runtime has it (CRRuntimeSupportsCheckpointRestore).
func absent(name string) bool { return name == "checkpoint" || name == "restore" }

func main() {
	populate.Heap()
	a := &app{inherited: inherited()}
	// Descriptors that the caller has left open are nobody's here, hooks least of all.
	unix.CloseRange(3, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC)
	if os.Args[0] == holderName {
		hold()
	}
	growStack()
	a.exit(a.run(os.Args[1:]))
}

// run reads the global options and carries out the command.
func (a *app) run(args []string) error {
	global := flag.NewFlagSet("fief-oci", flag.ContinueOnError)
	version := a.globalFlags(global)
	global.SetOutput(io.Discard)
	err := global.Parse(args)
	switch {
	case err == flag.ErrHelp:
		usage(os.Stdout, global)
		return nil
	case err != nil:
		return fault.Wrap(fault.Invalid, "read", "options", err, "see fief-oci --help")
	case *version:
		fmt.Printf("fief-oci version %s\nspec: %s\n", buildVersion, specVersion)
		return nil
	case a.logFormat != "text" && a.logFormat != "json":
		return fault.New(fault.Invalid, "use log format", strconv.Quote(a.logFormat), "not known", "text or json")
	}
	return a.dispatch(global)
}

// growStack makes the stack as large as it will be, once: growing in steps on the
// way copies it four times, and each copy walks it with cold tables.
//
//go:noinline
func growStack() byte {
	var frame [32 << 10]byte
	return frame[len(os.Args)%len(frame)]
}

// globalFlags declares the options of runc and crun that stand before the
// command.
func (a *app) globalFlags(set *flag.FlagSet) (version *bool) {
	set.StringVar(&a.root, "root", defaultRoot(), "directory of the containers' state")
	set.StringVar(&a.logFile, "log", "", "append errors to this file, not only to standard error")
	set.StringVar(&a.logFormat, "log-format", "text", "text or json")
	set.BoolVar(&a.debug, "debug", false, "print the launch plan of a failed start")
	set.BoolVar(&a.systemd, "systemd-cgroup", false, "have systemd make the cgroup: cgroupsPath is SLICE:PREFIX:NAME")
	set.Func("cgroup-manager", "cgroupfs, or disabled: containers stay in the caller's cgroup", a.manager)
	set.Func("rootless", "true, false or auto; without effect: what may not be done is found out", func(s string) error {
		if s == "auto" {
			return nil
		}
		_, err := strconv.ParseBool(s)
		return err
	})
	set.String("criu", "", "ignored, as runc has since 1.1")
	version = set.Bool("version", false, "print the version")
	set.BoolVar(version, "v", false, "short for --version")
	return version
}

func (a *app) manager(name string) error {
	switch name {
	case "cgroupfs":
	case "disabled":
		a.groupless = true
	default:
		return fault.New(fault.Unsupported, "use cgroup manager", strconv.Quote(name), "not supported", "use cgroupfs or disabled")
	}
	return nil
}

// defaultRoot is where root's containers are; others have a directory of their
// own, as with runc.
func defaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && os.Geteuid() != 0 {
		return dir + "/fief-oci"
	}
	return "/run/fief-oci"
}

func (a *app) dispatch(global *flag.FlagSet) error {
	args := global.Args()
	if len(args) == 0 {
		return fault.New(fault.Invalid, "run", "", "no command given", "see fief-oci --help")
	}
	if args[0] == "help" {
		usage(os.Stdout, global)
		return nil
	}
	if absent(args[0]) {
		return fault.New(fault.Unsupported, args[0], "container", args[0]+" is not supported by this runtime", "use a runtime with CRIU")
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		set := flag.NewFlagSet(c.name, flag.ContinueOnError)
		set.SetOutput(io.Discard)
		run := c.make(a, set)
		rest, err := parse(set, args[1:], c.program)
		if err == flag.ErrHelp {
			fmt.Println("usage: fief-oci " + c.usage)
			printFlags(os.Stdout, set)
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.Invalid, "read", "options of "+c.name, err, "see fief-oci "+c.name+" --help")
		}
		return run(rest)
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
	a.report("error", err)
	code := fault.ExitCodeOf(err)
	if code == 125 {
		code = 1 // what callers of OCI runtimes expect of a failed command
	}
	os.Exit(code)
}
