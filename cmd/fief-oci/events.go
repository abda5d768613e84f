package main

import (
	"encoding/json"
	"flag"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/cgroup"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// event is a line of `events` in runc's form (its types/events.go), which
// containerd (go-runc, type Event) parses.
type event struct {
	Type string `json:"type"` // "stats" or "oom"
	ID   string `json:"id"`
	Data *stats `json:"data,omitempty"`
}

// stats has the parts of runc's form that can be had: nanoseconds and bytes.
type stats struct {
	CPU struct {
		Usage struct {
			Total  uint64 `json:"total"`
			Kernel uint64 `json:"kernel"`
			User   uint64 `json:"user"`
		} `json:"usage"`
		Throttling struct {
			Periods   uint64 `json:"periods,omitempty"`
			Throttled uint64 `json:"throttledPeriods,omitempty"`
			Time      uint64 `json:"throttledTime,omitempty"`
		} `json:"throttling"`
	} `json:"cpu"`
	Memory struct {
		Cache uint64            `json:"cache,omitempty"`
		Usage memoryEntry       `json:"usage"`
		Raw   map[string]uint64 `json:"raw,omitempty"`
	} `json:"memory"`
	Pids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	} `json:"pids"`
	Blkio struct {
		Bytes  []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
		Counts []blkioEntry `json:"ioServicedRecursive,omitempty"`
	} `json:"blkio"`
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type blkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

func statsOf(r record.Stats) *stats {
	s := &stats{}
	s.CPU.Usage.Total, s.CPU.Usage.Kernel, s.CPU.Usage.User = r.CPU.Total, r.CPU.System, r.CPU.User
	s.CPU.Throttling.Periods, s.CPU.Throttling.Throttled, s.CPU.Throttling.Time = r.CPU.Periods, r.CPU.Throttled, r.CPU.ThrottledTime
	s.Memory.Usage = memoryEntry{r.Memory.Limit, r.Memory.Usage, r.Memory.Max, r.Memory.Failures}
	s.Memory.Raw = r.Memory.Details
	s.Memory.Cache = max(r.Memory.Details["cache"], r.Memory.Details["file"]) // v1's and v2's name of it
	s.Pids.Current, s.Pids.Limit = r.Pids.Current, r.Pids.Limit
	for _, b := range r.Blkio {
		op := map[string]string{"read": "Read", "write": "Write"}[b.Op]
		s.Blkio.Bytes = append(s.Blkio.Bytes, blkioEntry{b.Major, b.Minor, op, b.Bytes})
		s.Blkio.Counts = append(s.Blkio.Counts, blkioEntry{b.Major, b.Minor, op, b.Count})
	}
	return s
}

// sampling is how often the kernel's count of killed processes is looked at
// between statistics.
const sampling = time.Second

func eventsCommand(a *app, set *flag.FlagSet) func([]string) error {
	once := set.Bool("stats", false, "print statistics once")
	interval := set.Duration("interval", 5*time.Second, "time between statistics")
	return func(args []string) error {
		id, err := one(args)
		if err != nil {
			return err
		}
		if *interval <= 0 {
			return fault.New(fault.Invalid, "use interval", interval.String(), "not more than 0", "")
		}
		c, tree, err := a.grouped("watch", id)
		if err != nil {
			return err
		}
		defer tree.Close()
		w := watch{c, tree, json.NewEncoder(os.Stdout)}
		if *once {
			return w.stats()
		}
		return w.follow(*interval)
	}
}

// watch prints what happens to a container.
type watch struct {
	c    *container
	tree *cgroup.Tree
	to   *json.Encoder
}

func (w watch) stats() error {
	r, err := w.tree.Stats(w.c.Cgroup)
	if err != nil {
		return err
	}
	return w.to.Encode(event{"stats", w.c.ID, statsOf(r)})
}

// follow prints statistics at intervals, and an event for each look that finds
// more processes killed for lack of memory, until the container has ended.
func (w watch) follow(interval time.Duration) error {
	fd, err := w.c.pidfd()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	kills, err := w.tree.OOMKills(w.c.Cgroup)
	if err != nil {
		return err
	}
	for next := time.Now().Add(interval); ; {
		wait := min(time.Until(next), sampling)
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(max(wait, 0).Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return fault.Wrap(fault.Internal, "watch container", w.c.ID, err, "")
		}
		if now, err := w.tree.OOMKills(w.c.Cgroup); err == nil && now > kills {
			kills = now
			if err := w.to.Encode(event{Type: "oom", ID: w.c.ID}); err != nil {
				return err
			}
		}
		if n > 0 {
			return nil
		}
		if time.Now().Before(next) {
			continue
		}
		next = next.Add(interval)
		if err := w.stats(); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
}
