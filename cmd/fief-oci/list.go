package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/cgroup"
	"fief/internal/words/fault"
)

// formatFlag declares --format.
func formatFlag(set *flag.FlagSet) *string {
	format := set.String("format", "table", "table or json")
	set.StringVar(format, "f", "table", "short for --format")
	return format
}

func checkFormat(name string) error {
	if name == "table" || name == "json" {
		return nil
	}
	return fault.New(fault.Invalid, "use format", strconv.Quote(name), "invalid format option", "table or json")
}

func listCommand(a *app, set *flag.FlagSet) func([]string) error {
	format := formatFlag(set)
	quiet := set.Bool("quiet", false, "only ids")
	set.BoolVar(quiet, "q", false, "only ids")
	return func([]string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		entries, err := os.ReadDir(a.root)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.Wrap(fault.Internal, "list", a.root, err, "")
		}
		list := []report{}
		for _, e := range entries {
			if c, err := a.open(e.Name()); err == nil {
				list = append(list, c.report())
			}
		}
		return printList(list, *format, *quiet)
	}
}

func printList(list []report, format string, quiet bool) error {
	if quiet {
		for _, s := range list {
			fmt.Println(s.ID)
		}
		return nil
	}
	if format == "json" {
		return printJSON(os.Stdout, list)
	}
	w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.PID, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}

// psCommand lists the container's processes as this process numbers them: as
// JSON, or those lines of ps(1) that are theirs.
func psCommand(a *app, set *flag.FlagSet) func([]string) error {
	format := formatFlag(set)
	return func(args []string) error {
		if len(args) == 0 {
			return fault.New(fault.Invalid, "run", "ps", "a container id is needed", "")
		}
		if err := checkFormat(*format); err != nil {
			return err
		}
		c, err := a.open(args[0])
		if err != nil {
			return err
		}
		pids := c.processes()
		if *format == "json" {
			return printJSON(os.Stdout, pids)
		}
		options := args[1:]
		if len(options) == 0 {
			options = []string{"-ef"}
		}
		out, err := exec.Command("ps", options...).CombinedOutput()
		if err != nil {
			return fault.Wrap(fault.Internal, "run", "ps "+strings.Join(options, " "), err, printable(out))
		}
		return printProcesses(out, pids)
	}
}

// printProcesses prints the title of ps's output and the lines of some processes.
func printProcesses(out []byte, pids []int) error {
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	lines.Scan()
	title := lines.Text()
	column := slices.Index(strings.Fields(title), "PID")
	if column < 0 {
		return fault.New(fault.Invalid, "read", "output of ps", "it has no column PID", "ask for one")
	}
	fmt.Println(title)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if column >= len(fields) {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Println(lines.Text())
		}
	}
	return lines.Err()
}

// processes are those in the container's group. Without one they are those of its
// pid namespace, where that is its own: others' are in a shared one.
func (c *container) processes() []int {
	if c.Cgroup != "" {
		if tree, err := cgroup.Open(ownGroups); err == nil {
			defer tree.Close()
			if pids, err := tree.Pids(c.Cgroup); err == nil {
				return append([]int{}, pids...)
			}
		}
	}
	pids := []int{}
	if c.status() == specs.StateStopped {
		return pids
	}
	own, err := os.Readlink("/proc/" + strconv.Itoa(c.PID) + "/ns/pid")
	if err != nil || !c.ownPIDs() {
		return append(pids, c.PID)
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ns, err := os.Readlink("/proc/" + e.Name() + "/ns/pid"); err == nil && ns == own {
			pids = append(pids, pid)
		}
	}
	return pids
}

// ownPIDs reports whether the container's pid namespace was made for it: its
// processes then end with the first one.
func (c *container) ownPIDs() bool {
	spec, err := c.spec()
	return err == nil && slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.PIDNamespace && n.Path == ""
	})
}
