// Command bench times whole commands in one run, round-robin, each after a
// pause: fief's, the floor's, and those of the engines that are installed. It
// prints medians as a table and as JSON. What is slower than a shell can tell
// belongs here and not into a test: figures are judged as ratios within a run.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"
)

// contestant is a command to time. Prepare has been done when it exists.
type contestant struct {
	Name  string          `json:"name"`
	Group string          `json:"group"`
	Runs  []time.Duration `json:"-"`
	P50   float64         `json:"p50_ms"`
	Min   float64         `json:"min_ms"`
	P90   float64         `json:"p90_ms"`
	Fails int             `json:"failures,omitempty"`
	make  func() *exec.Cmd
}

func main() {
	n := flag.Int("n", 40, "runs of each command")
	idle := flag.Duration("idle", 40*time.Millisecond, "pause before each run: an honest single start finds the machine idle")
	only := flag.String("only", "", "comma-separated parts of names; others are left out (\"ids\": what is done with ids; \"pull\": images; \"memory\": the monitors'; \"throughput\": TCP')")
	streams := flag.Int("streams", 15, "streams of a second over each path")
	var im imageOptions
	flag.BoolVar(&im.big, "big", false, "pull the large image: some 37,000 files, 1.6 GB")
	flag.IntVar(&im.rounds, "rounds", 3, "pulls of each engine, and its first starts where nothing can be idmapped")
	flag.StringVar(&im.cache, "cache", defaultCache(), "directory in which Debian packages are kept")
	flag.StringVar(&im.parts, "parts", "", "comma-separated parts of what is done with images: pulls, maps, commits, fallbacks (default all)")
	out := flag.String("json", "", "file for the JSON (default: below the table)")
	flag.Parse()
	defer quit()
	if streamed(flag.Args()) {
		return
	}
	if os.Geteuid() != 0 {
		fatal(fmt.Errorf("the bench needs root"))
	}
	withImages := *only == "" || strings.Contains(*only, "pull")
	if os.Getenv("FIEF_BENCH_INSIDE") == "" {
		if withImages {
			im.fetch()
		}
		inside()
	}
	stopWhenAsked()
	pureCgroup2()
	work, err := os.MkdirTemp("", "fief-bench-")
	check(err)
	defer os.RemoveAll(work)
	stage := newStage(work)
	defer stage.close()
	list := chosen(stage.contestants(), *only)
	round(list, 3, 0) // warm up
	for _, c := range list {
		c.Runs, c.Fails = nil, 0
	}
	round(list, *n, *idle)
	list = append(list, stage.floor(*n, *idle)...)
	if *only == "" || strings.Contains(*only, "ids") {
		list = append(list, stage.ids(*n, *idle)...)
	}
	var verdicts []verdict
	if withImages {
		rows, judged := stage.images(im)
		list, verdicts = append(list, rows...), judged
	}
	verdicts = append(judgeNetworks(list), verdicts...)
	more := map[string]any{}
	if *only == "" || strings.Contains(*only, "throughput") {
		judged, rows := stage.throughput(*streams)
		verdicts, more["throughput"] = append(verdicts, judged...), rows
	}
	if *only == "" || strings.Contains(*only, "memory") {
		more["monitor_memory"] = stage.monitors()
	}
	more["promises"] = verdicts
	report(list, verdicts, more, *out)
}

// quit turns a failure into an exit code, after everything else was cleaned up.
func quit() {
	switch f := recover().(type) {
	case nil:
	case failure:
		fmt.Fprintln(os.Stderr, "bench:", f)
		os.Exit(1)
	default:
		panic(f)
	}
}

// inside starts the bench again in a mount and a network namespace of its own:
// what the engines mount goes with it, and nothing but loopback is there.
func inside() {
	stopWhenAsked() // the bench itself decides, and is waited for
	exe, err := os.Executable()
	check(err)
	script := `ip link set lo up && exec "$0" "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "--net", "--propagation", "private", "sh", "-c", script, exe}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), "FIEF_BENCH_INSIDE=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// asked is set when the bench was asked to end. The commands it waits for were
// asked by the same key, or end by themselves; then it fails and cleans up.
var asked atomic.Bool

func stopWhenAsked() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	go func() {
		for range c {
			asked.Store(true)
		}
	}()
}

func endIfAsked() {
	if asked.Load() {
		fatal(fmt.Errorf("interrupted"))
	}
}

// pureCgroup2 shows cgroup v2 alone at /sys/fs/cgroup, in this mount namespace:
// crun refuses machines that have v1 hierarchies beside it.
func pureCgroup2() {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return
	}
	if err := syscall.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
		fmt.Fprintln(os.Stderr, "bench: cgroup v2 cannot be mounted; crun may refuse this machine:", err)
	}
}

func chosen(all []*contestant, only string) []*contestant {
	if only == "" {
		return all
	}
	return slices.DeleteFunc(all, func(c *contestant) bool {
		return !slices.ContainsFunc(strings.Split(only, ","), func(s string) bool { return strings.Contains(c.Name, s) })
	})
}

// round runs every contestant n times, in turn.
func round(list []*contestant, n int, idle time.Duration) {
	for range n {
		for _, c := range list {
			endIfAsked()
			time.Sleep(idle)
			cmd := c.make()
			from := time.Now()
			err := cmd.Run()
			took := time.Since(from)
			if err != nil {
				c.Fails++
				continue
			}
			c.Runs = append(c.Runs, took)
		}
	}
}

func ms(d time.Duration) float64 {
	if d >= time.Millisecond {
		d = d.Round(10 * time.Microsecond)
	}
	return float64(d) / float64(time.Millisecond)
}

// figure prints milliseconds, with more digits where there are only microseconds.
func figure(ms float64) string {
	if ms > 0 && ms < 0.1 {
		return strconv.FormatFloat(ms, 'f', 4, 64)
	}
	return strconv.FormatFloat(ms, 'f', 2, 64)
}

// median fills in what is shown of the runs.
func (c *contestant) median() {
	if len(c.Runs) == 0 {
		return
	}
	slices.Sort(c.Runs)
	c.Min, c.P50, c.P90 = ms(c.Runs[0]), ms(c.Runs[len(c.Runs)/2]), ms(c.Runs[len(c.Runs)*9/10])
}

// report prints the table, ratios to bare crun with a user namespace, what is
// said about promises, and JSON with more in it.
func report(list []*contestant, verdicts []verdict, more map[string]any, out string) {
	var base float64
	for _, c := range list {
		c.median()
		if c.Name == baseline {
			base = c.P50
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tCOMMAND\tP50 ms\tMIN\tP90\tx CRUN\tFAILED")
	for _, c := range list {
		ratio := "-"
		if base > 0 && c.Group == "run" {
			ratio = fmt.Sprintf("%.2f", c.P50/base)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", c.Group, c.Name, figure(c.P50), figure(c.Min), figure(c.P90), ratio, c.Fails)
	}
	w.Flush()
	printVerdicts(verdicts)
	more["date"], more["kernel"], more["load"], more["results"] = time.Now().UTC().Format(time.RFC3339), kernel(), load(), list
	b, err := json.MarshalIndent(more, "", "  ")
	check(err)
	if out == "" {
		fmt.Println(string(b))
		return
	}
	check(os.WriteFile(out, append(b, '\n'), 0o644))
}

func kernel() string { return first("/proc/sys/kernel/osrelease") }
func load() string   { return first("/proc/loadavg") }

func first(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

func check(err error) {
	if err != nil {
		fatal(err)
	}
}

// fatal ends the bench through its deferred clean-up.
func fatal(err error) { panic(failure{err}) }

type failure struct{ error }

// root returns the project's root.
func root() string {
	dir, err := os.Getwd()
	check(err)
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	fatal(fmt.Errorf("run the bench inside the project"))
	return ""
}
