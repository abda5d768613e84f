//go:build failpoint

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// plan says where to end: FIEF_FAILPOINT=<name>:<k>, the k-th time that this
// point is reached, or *:<k>, the k-th point of all. FIEF_FAILPOINT_LOG is a
// file that every name is written to when it is reached.
type plan struct {
	name string
	nth  int64
	log  *os.File
	hits atomic.Int64
}

var armed = sync.OnceValue(func() *plan {
	p := &plan{}
	name, nth, _ := strings.Cut(os.Getenv("FIEF_FAILPOINT"), ":")
	p.name = name
	p.nth, _ = strconv.ParseInt(nth, 10, 64)
	if path := os.Getenv("FIEF_FAILPOINT_LOG"); path != "" {
		p.log, _ = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	}
	return p
})

// Hit ends the process here with SIGKILL if that is what was asked for: nothing
// deferred runs, nothing buffered is written.
func Hit(name string) {
	p := armed()
	if p.log != nil {
		p.log.WriteString(name + "\n")
	}
	if p.name != "*" && p.name != name || p.nth == 0 || p.hits.Add(1) != p.nth {
		return
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way: nothing more may happen here
}
