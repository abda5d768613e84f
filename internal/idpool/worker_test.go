package idpool

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"fief/internal/words/record"
)

const workerEnv = "FIEF_TEST_IDPOOL_WORKER"

// order is what the test tells a worker at its start.
type order struct {
	Config Config
	Held   []Held
}

// work is a daemon reduced to its pool: it leases and releases at random and
// says so, one line each, until it is killed.
func work() {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		panic(err)
	}
	p, err := Open(o.Config, o.Held)
	if err != nil {
		fmt.Println("failed", err)
		return
	}
	for _, h := range p.Lost() {
		fmt.Println("lost", h.Owner, h.Lease.Base, h.Lease.Size)
	}
	var owners []string
	for _, h := range o.Held {
		owners = append(owners, h.Owner)
	}
	for i := 0; ; i++ {
		if len(owners) > 0 && rand.IntN(3) == 0 {
			n := rand.IntN(len(owners))
			// Said first: what is released may be another's at once.
			fmt.Println("release", owners[n], 0, 0)
			p.Release(owners[n])
			owners = append(owners[:n], owners[n+1:]...)
			continue
		}
		owner := fmt.Sprintf("%d-%d", os.Getpid(), i)
		l, err := p.Lease(owner, uint32(1+rand.IntN(3*rangeIDs)))
		if err != nil {
			time.Sleep(2 * time.Millisecond)
			continue
		}
		owners = append(owners, owner)
		fmt.Println("lease", owner, l.Base, l.Size)
	}
}

// daemon is a worker as the test sees it.
type daemon struct {
	cfg   Config
	cmd   *exec.Cmd
	done  chan struct{}
	lines chan event
	held  map[string]record.Lease // what the worker last said it has
}

type event struct {
	from  *daemon
	what  string
	owner string
	lease record.Lease
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	d.cmd = exec.Command("/proc/self/exe")
	d.cmd.Env = append(os.Environ(), workerEnv+"=1")
	in, err := d.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stderr = os.Stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	o := order{Config: d.cfg}
	for owner, l := range d.held {
		o.Held = append(o.Held, Held{owner, l})
	}
	if err := json.NewEncoder(in).Encode(o); err != nil {
		t.Fatal(err)
	}
	in.Close()
	d.done = make(chan struct{})
	go d.listen(out)
}

func (d *daemon) listen(out io.Reader) {
	defer close(d.done)
	for scan := bufio.NewScanner(out); scan.Scan(); {
		e := event{from: d}
		if _, err := fmt.Sscan(scan.Text(), &e.what, &e.owner, &e.lease.Base, &e.lease.Size); err != nil {
			e.what = scan.Text()
		}
		d.lines <- e
	}
}

// kill ends the worker at whatever it was doing, and waits for what it said.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
	_ = d.cmd.Wait()
}

// TestKilledDaemonsNeverOverlap runs several daemons on one directory of
// claims, kills and restarts them at random moments, lets data roots vanish,
// and checks every lease they say they have against all others' at that time.
func TestKilledDaemonsNeverOverlap(t *testing.T) {
	host := newHost(t).slabsFrom(20, 7)
	lines := make(chan event)
	var daemons []*daemon
	for range 4 {
		d := &daemon{cfg: another(t, host), lines: lines, held: map[string]record.Lease{}}
		d.start(t)
		daemons = append(daemons, d)
	}
	checked := make(chan int)
	go func() { checked <- check(t, lines, daemons) }()
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		d := daemons[rand.IntN(len(daemons))]
		d.kill()
		if rand.IntN(4) == 0 {
			lines <- event{from: d, what: "vanish"}
			if err := os.Rename(filepath.Join(d.cfg.DataRoot, idFile), filepath.Join(d.cfg.DataRoot, "gone")); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
		lines <- event{from: d, what: "sync"} // once it is taken, all before it has been worked on
		d.start(t)
	}
	for _, d := range daemons {
		d.kill()
	}
	close(lines)
	if n := <-checked; n < 200 {
		t.Errorf("only %d leases were checked", n)
	}
}

// check keeps who has what. It is the only one that touches daemon.held while
// a daemon runs.
func check(t *testing.T, lines chan event, daemons []*daemon) (leases int) {
	for e := range lines {
		switch e.what {
		case "lease":
			leases++
			for _, other := range daemons {
				for owner, l := range other.held {
					if overlap(l, e.lease) {
						t.Errorf("%s of %s has %+v, %s of %s has %+v", e.owner, e.from.cfg.DataRoot, e.lease, owner, other.cfg.DataRoot, l)
					}
				}
			}
			e.from.held[e.owner] = e.lease
		case "release":
			delete(e.from.held, e.owner)
		case "vanish":
			clear(e.from.held)
		case "sync":
		default:
			t.Errorf("%s: %s %s", e.from.cfg.DataRoot, e.what, e.owner)
		}
	}
	return leases
}
