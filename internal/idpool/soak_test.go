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
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fief/internal/words/idmap"
)

// opsEnv makes a soak as long as that many operations.
const opsEnv = "FIEF_IDPOOL_OPS"

// allSteps are the steps at which a soak kills workers.
var allSteps = []string{
	"claims locked", "fresh file opened", "fresh file written", "linked", "created", "replaced", "claimed on disk", "claim dropped",
}

// daemon is a worker as the soak sees it.
type daemon struct {
	order order
	cmd   *exec.Cmd
	said  chan struct{} // closed once all it said was read
}

// soak runs workers with data roots of their own over one directory of claims.
type soak struct {
	t       *testing.T
	host    Config
	board   board
	daemons []*daemon
	lines   map[int]bool // ranges that a line of the host gives away

	kills, steps, vanished, removed, changed int
}

// TestKilledDaemonsNeverOverlap lets several daemons lease, hold, share, rename
// and release at random, kills them at random moments and at every step of a
// claim, lets data roots vanish and claims be removed, changes the host's files
// and the daemons' configurations, and compares all that is granted with what
// the others say they have. Files and processes are left in released ranges.
func TestKilledDaemonsNeverOverlap(t *testing.T) {
	target, limit := uint64(1)<<40, 6*time.Second
	if text := os.Getenv(opsEnv); text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		target, limit = n, 2*time.Hour
	}
	s := newSoak(t, 4)
	began := time.Now()
	for uint64(s.board.ops.Load()) < target && time.Since(began) < limit && !t.Failed() {
		time.Sleep(time.Duration(rand.IntN(70)) * time.Millisecond)
		s.disturb()
	}
	for _, d := range s.daemons {
		s.kill(d)
	}
	t.Logf("%d operations of %d processes, %d leases compared, in %v; %d kills (%d at a step), %d data roots vanished, %d claims removed, %d changes of host and configuration",
		s.board.ops.Load(), len(s.daemons), s.board.told.Load(), time.Since(began).Round(time.Millisecond), s.kills, s.steps, s.vanished, s.removed, s.changed)
	if s.board.told.Load() < 200 || s.kills < 20 {
		t.Error("that is too few to prove anything")
	}
}

func newSoak(t *testing.T, n int) *soak {
	host := newHost(t).slabsFrom(20, 7)
	path := filepath.Join(t.TempDir(), "board")
	s := &soak{t: t, host: host, board: newBoard(t, path), lines: map[int]bool{}}
	for i := range n {
		d := &daemon{order: order{Config: another(t, host), Root: uint32(i), Board: path, Litter: t.TempDir()}}
		s.daemons = append(s.daemons, d)
		s.start(d)
	}
	return s
}

// disturb changes something, and then kills and restarts a daemon.
func (s *soak) disturb() {
	if rand.IntN(3) == 0 {
		s.changeHost()
	}
	d := s.daemons[rand.IntN(len(s.daemons))]
	s.kill(d)
	switch rand.IntN(12) {
	case 0:
		s.vanish(d)
	case 1:
		s.removeClaim(d)
	case 2, 3:
		s.changed++
		d.order.Config = d.order.Config.slabsFrom(20+rand.IntN(2), 5+rand.IntN(3))
	}
	d.order.KillAt = ""
	if rand.IntN(2) == 0 {
		d.order.KillAt, d.order.After = allSteps[rand.IntN(len(allSteps))], rand.IntN(3)
	}
	s.settle(d)
	s.start(d)
}

func (s *soak) start(d *daemon) {
	d.cmd = exec.Command("/proc/self/exe")
	d.cmd.Env = append(os.Environ(), workerEnv+"=1")
	raw, err := json.Marshal(d.order)
	if err != nil {
		s.t.Fatal(err)
	}
	in, err := d.cmd.StdinPipe() // open as long as the soak runs, and closed by Wait
	if err != nil {
		s.t.Fatal(err)
	}
	d.cmd.Stderr = os.Stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	if _, err := in.Write(raw); err != nil {
		s.t.Fatal(err)
	}
	said := make(chan struct{})
	d.said = said
	go func() {
		defer close(said)
		s.listen(out)
	}()
}

func (s *soak) listen(out io.Reader) {
	for scan := bufio.NewScanner(out); scan.Scan(); {
		s.t.Error(scan.Text())
	}
}

// kill ends a worker at whatever it was doing.
func (s *soak) kill(d *daemon) {
	select {
	case <-d.said:
		s.steps++ // it has killed itself at a step
	default:
		_ = d.cmd.Process.Kill()
	}
	s.kills++
	<-d.said
	_ = d.cmd.Wait()
}

// settle takes back from the board what the killed worker had no record of yet:
// its owners never were. What records say stays, while no daemon watches it.
func (s *soak) settle(d *daemon) {
	n := readNotes(filepath.Join(d.order.Config.DataRoot, "records"))
	leased, pinned := map[int]bool{}, map[int]bool{}
	for _, l := range n.leases {
		rangesIn(l, func(r uint64) { leased[int(r)] = true })
	}
	for _, l := range n.pins {
		rangesIn(l, func(r uint64) { pinned[int(r)] = true })
	}
	for r := range maxRanges {
		if !leased[r] {
			s.board.leased[r].CompareAndSwap(d.order.Root+1, 0)
		}
		if !pinned[r] {
			s.board.pinned[r].And(^(1 << d.order.Root))
		}
	}
	s.tidy(d)
}

// tidy removes what a killed worker has left in ranges and no longer knows of.
func (s *soak) tidy(d *daemon) {
	for r := range maxRanges {
		s.board.dirty[r].CompareAndSwap(d.order.Root+1, 0)
	}
	_ = os.RemoveAll(d.order.Litter)
	entries, err := os.ReadDir(s.host.Proc)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), fmt.Sprint(d.order.Root)) {
			away := filepath.Join(filepath.Dir(s.host.Proc), "gone"+e.Name())
			_ = os.Rename(filepath.Join(s.host.Proc, e.Name()), away)
			_ = os.RemoveAll(away)
		}
	}
	if err := os.MkdirAll(d.order.Litter, 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// vanish removes a data root, with its records: its ids are free.
func (s *soak) vanish(d *daemon) {
	s.vanished++
	s.board.forget(d.order.Root, func(int) bool { return true })
	entries, err := os.ReadDir(d.order.Config.DataRoot)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		_ = os.RemoveAll(filepath.Join(d.order.Config.DataRoot, e.Name()))
	}
}

// removeClaim removes a claim of a daemon that is down. From then on somebody
// else may have the slab; the daemon finds its leases there lost, or has it
// again.
func (s *soak) removeClaim(d *daemon) {
	c := claims{dir: s.host.ClaimDir}
	all, unlock, err := c.locked()
	if err != nil {
		s.t.Fatal(err)
	}
	defer unlock()
	for number, claim := range all {
		if claim.root != d.order.Config.DataRoot {
			continue
		}
		s.removed++
		s.board.forget(d.order.Root, func(r int) bool { return r/slabRanges == number })
		if err := os.Remove(c.path(number)); err != nil {
			s.t.Error(err)
		}
		return
	}
}

// changeHost gives some ranges to somebody by a line of subuid or passwd, or
// takes them back.
func (s *soak) changeHost() {
	s.changed++
	gone := -1
	if len(s.lines) > 5 {
		for r := range s.lines {
			gone = r
			break
		}
		delete(s.lines, gone)
		s.board.theirs[gone].Store(0) // said first: it may be leased from then on
	}
	added := 20*slabRanges + rand.IntN(7*slabRanges)
	s.lines[added] = true
	var subids, users strings.Builder
	users.WriteString("root:x:0:0:root:/root:/bin/sh\n")
	for r := range s.lines {
		if r%2 == 0 {
			fmt.Fprintf(&subids, "somebody:%d:%d\n", r*rangeIDs+rand.IntN(rangeIDs-10), 1+rand.IntN(10))
		} else {
			fmt.Fprintf(&users, "user%d:x:%d:0::/:/bin/sh\n", r, r*rangeIDs+rand.IntN(rangeIDs))
		}
	}
	for path, text := range map[string]string{s.host.SubGID: subids.String(), s.host.Passwd: users.String()} {
		write(s.t, path+".new", text)
		if err := os.Rename(path+".new", path); err != nil {
			s.t.Fatal(err)
		}
	}
	s.board.theirs[added].Store(s.board.gen.Add(1))
}

// TestAllStepsAreKnown keeps allSteps in line with the code.
func TestAllStepsAreKnown(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 2)
	var got []string
	cfg.steps = func(name string) {
		if !slices.Contains(got, name) {
			got = append(got, name)
		}
	}
	p := open(t, cfg)
	p.Close()
	if err := os.Remove(filepath.Join(cfg.DataRoot, idFile)); err != nil {
		t.Fatal(err)
	}
	p = open(t, cfg) // drops the claim of the former root
	lease(t, p, "all of it", slabIDs)
	p.Close()
	wider := cfg
	wider.Last -= 10 * rangeIDs
	wider.First += idmap.Host(10 * rangeIDs)
	p = open(t, wider) // corrects the claim
	p.Close()
	slices.Sort(got)
	want := slices.Sorted(slices.Values(allSteps))
	if !slices.Equal(got, want) {
		t.Errorf("passed %q\nknown %q", got, want)
	}
}
