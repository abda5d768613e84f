package runtime_test

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/launch"
	"fief/internal/launch/launchtest"
	"fief/internal/runtime"
)

// BenchmarkStart is the time until a container's program runs, and until it has
// ended and was reaped, after the root file system was made.
func BenchmarkStart(b *testing.B) {
	box := newBox(b)
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
		proc, err := runtime.Start(encoded, fds)
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
	}
}
