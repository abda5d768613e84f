package runtime_test

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/launch"
	"fief/internal/launch/launchtest"
)

// BenchmarkStart is the time until a container's program runs, and until it has
// ended and was reaped, after the root file system was made.
func BenchmarkStart(b *testing.B) { measureStarts(b, newBox(b)) }

func measureStarts(b *testing.B, box *box) {
	p, err := compiler().Container(launchtest.Spec("/bin/true"), box.opt)
	if err != nil {
		b.Fatal(err)
	}
	encoded, err := p.Encode()
	if err != nil {
		b.Fatal(err)
	}
	var starts, ends []time.Duration
	for b.Loop() {
		fds, done := box.files(&p, 2)
		begin := time.Now()
		proc, err := box.launch(encoded, fds)
		if err != nil {
			b.Fatal(err)
		}
		starts = append(starts, time.Since(begin))
		wait(b, proc.PID)
		ends = append(ends, time.Since(begin))
		unix.Close(proc.PIDFD)
		done()
	}
	slices.Sort(starts)
	slices.Sort(ends)
	b.ReportMetric(float64(starts[len(starts)/2].Microseconds()), "start-p50-µs")
	b.ReportMetric(float64(ends[len(ends)/2].Microseconds()), "exit-p50-µs")
	b.ReportMetric(float64(starts[0].Microseconds()), "start-min-µs")
}

// BenchmarkStages is the median time of each stage, noted by the child itself.
func BenchmarkStages(b *testing.B) { measureStages(b, newBox(b)) }

// BenchmarkLeanStages is the same from a process whose memory stays its own.
func BenchmarkLeanStages(b *testing.B) { measureStages(b, newBox(b).lean()) }

func measureStages(b *testing.B, box *box) {
	box.opt.Trace = true
	p, err := compiler().Container(launchtest.Spec("/bin/true"), box.opt)
	if err != nil {
		b.Fatal(err)
	}
	encoded, err := p.Encode()
	if err != nil {
		b.Fatal(err)
	}
	names := []string{"clone-and-maps", "root", "mounts", "masks", "security", "exec"}
	rows := make([][]int64, len(names))
	for b.Loop() {
		fds, done := box.files(&p, 2)
		begin := monotonic()
		proc, err := box.launch(encoded, fds)
		if err != nil {
			b.Fatal(err)
		}
		end := monotonic()
		wait(b, proc.PID)
		unix.Close(proc.PIDFD)
		done()
		last := begin
		for i, at := range append(proc.Stamps[:len(names)-1:len(names)-1], end) {
			rows[i] = append(rows[i], at-last)
			last = at
		}
	}
	for i, name := range names {
		slices.Sort(rows[i])
		b.ReportMetric(float64(rows[i][len(rows[i])/2]/1000), name+"-p50-µs")
	}
}

func monotonic() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// BenchmarkPlan is the time to make and encode a plan.
func BenchmarkPlan(b *testing.B) {
	c, s := compiler(), launchtest.Spec("/bin/true")
	for b.Loop() {
		p, err := c.Container(s, launch.Options{ID: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Encode(); err != nil {
			b.Fatal(err)
		}
		c.Release(&p)
	}
}
