package idpool

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

const workerEnv = "FIEF_TEST_IDPOOL_WORKER"

// order is what a soak tells a worker at its start.
type order struct {
	Config Config
	Root   uint32 // number of its data root
	Board  string
	Litter string // below which it leaves files, kept outside of its data root
	KillAt string // the step at which it kills itself
	After  int    // how often it passes that step first
}

// notes are a worker's records, as an engine's: the file survives a kill.
type notes struct {
	file   *os.File
	leases map[string]record.Lease
	pins   map[string]record.Lease
	shares map[string]bool // of pins: those that are shares
}

// readNotes replays the file of records.
func readNotes(path string) *notes {
	n := &notes{leases: map[string]record.Lease{}, pins: map[string]record.Lease{}, shares: map[string]bool{}}
	text, _ := os.ReadFile(path)
	for line := range bytes.Lines(text) {
		var what, owner, other string
		var l record.Lease
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		if _, err := fmt.Sscan(string(line), &what, &owner, &other, &l.Base, &l.Size); err != nil {
			panic(fmt.Sprintf("%q: %v", line, err))
		}
		n.apply(what, owner, other, l)
	}
	return n
}

func (n *notes) apply(what, owner, other string, l record.Lease) {
	switch what {
	case "lease":
		n.leases[owner] = l
	case "hold", "share":
		n.pins[owner], n.shares[owner] = l, what == "share"
	case "drop":
		delete(n.leases, owner)
		delete(n.pins, owner)
	case "rename":
		if l, ok := n.leases[owner]; ok {
			n.leases[other] = l
			delete(n.leases, owner)
		}
	}
}

// put writes a record. One write is there after a kill or is not.
func (n *notes) put(what, owner, other string, l record.Lease) {
	n.apply(what, owner, other, l)
	if _, err := fmt.Fprintln(n.file, what, owner, other, l.Base, l.Size); err != nil {
		panic(err)
	}
}

// begin opens the file of records anew, with what it says in few lines.
func (n *notes) begin(path string) {
	fresh := path + ".new"
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	n.file = f
	for owner, l := range n.leases {
		n.put("lease", owner, "-", l)
	}
	for owner, l := range n.pins {
		n.put(map[bool]string{true: "share", false: "hold"}[n.shares[owner]], owner, "-", l)
	}
	if err := os.Rename(fresh, path); err != nil {
		panic(err)
	}
}

// fileShelf keeps documents in files: what is written is there after a kill.
type fileShelf string

func (dir fileShelf) PutSoon(key string, v any) error {
	path := filepath.Join(string(dir), key)
	if v == nil {
		return os.Remove(path)
	}
	raw, err := json.Marshal(v)
	fresh := filepath.Join(string(dir), ".new")
	return errors.Join(err, os.WriteFile(fresh, raw, 0o600), os.Rename(fresh, path))
}

func (dir fileShelf) Each(f func(string, []byte) error) error {
	entries, err := os.ReadDir(string(dir))
	for _, e := range entries {
		raw, failed := os.ReadFile(filepath.Join(string(dir), e.Name()))
		if strings.HasPrefix(e.Name(), ".") || err != nil {
			continue
		}
		err = cmpErrs(failed, f(e.Name(), raw))
	}
	return err
}

func cmpErrs(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// worker is a daemon reduced to its pool.
type worker struct {
	order
	board board
	notes *notes
	pool  *Pool
	next  int
	mess  []mess
}

// mess is something left in released ranges.
type mess struct {
	path  string // a file, or a process
	away  string // where a process goes
	lease record.Lease
}

// work does random things with a pool and compares what it is granted with the
// board, until it is killed. It prints what is wrong.
func work() {
	w := &worker{}
	in := bufio.NewReader(os.Stdin)
	if err := json.NewDecoder(in).Decode(&w.order); err != nil {
		panic(err)
	}
	go func() { // nobody goes on when the soak has ended, however
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	w.board, _ = openBoard(w.Board)
	w.Config.steps = w.step
	docs := filepath.Join(w.Config.DataRoot, "docs")
	if err := os.MkdirAll(docs, 0o700); err != nil {
		panic(err)
	}
	w.Config.Quarantine = fileShelf(docs)
	w.notes = readNotes(w.records())
	w.next = os.Getpid() * 1_000_000
	w.open()
	for {
		w.one()
		w.board.ops.Add(1)
	}
}

func (w *worker) records() string { return filepath.Join(w.Config.DataRoot, "records") }

func (w *worker) step(name string) {
	if name != w.KillAt {
		return
	}
	if w.After--; w.After < 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func wrong(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// open starts the pool as a daemon does: with the leases of the records, and
// then their maps.
func (w *worker) open() {
	w.notes.begin(w.records())
	var had []Held
	for owner, l := range w.notes.leases {
		had = append(had, Held{owner, l})
	}
	p, err := Open(w.Config, had)
	if err != nil {
		wrong("root %d cannot open its pool: %v", w.Root, err)
		select {}
	}
	w.pool = p
	for _, h := range p.Lost() {
		w.board.free(w.Root, h.Lease)
		w.notes.put("drop", h.Owner, "-", record.Lease{})
	}
	for owner, l := range w.notes.leases {
		if err := w.board.adopt(w.Root, l); err != nil {
			wrong("root %d: %s: %v", w.Root, owner, err)
		}
	}
	for owner, l := range w.notes.pins {
		if !w.pin(owner, l, w.notes.shares[owner]) {
			w.notes.put("drop", owner, "-", l)
			w.unpin(l)
		}
	}
}

// one does one random thing.
func (w *worker) one() {
	switch n := rand.IntN(100); {
	case n < 45:
		w.lease()
	case n < 78:
		w.release()
	case n < 83:
		w.messUp()
	case n < 88:
		w.cleanUp()
	case n < 92:
		w.rename()
	case n < 95:
		w.pinSome()
	case n < 98:
		w.release() // pins among them
	case rand.IntN(10) == 0:
		w.pool.Close()
		w.open()
	default:
		w.pool.rush()
		_ = w.pool.Info()
		if rand.IntN(10) == 0 {
			if _, err := w.pool.Holders(); err != nil {
				wrong("root %d: %v", w.Root, err)
			}
		}
	}
}

func (w *worker) name() string {
	w.next++
	return fmt.Sprintf("c%d", w.next)
}

func (w *worker) lease() {
	if len(w.notes.leases) > 40 {
		w.release()
		return
	}
	size := uint32(1 + rand.IntN(3*rangeIDs))
	switch rand.IntN(300) {
	case 0:
		size = uint32(1 + rand.IntN(2*slabIDs))
	case 1, 2:
		size = uint32(1 + rand.IntN(20*rangeIDs))
	}
	owner, gen := w.name(), w.board.gen.Load()
	l, err := w.pool.Lease(owner, size)
	if err != nil {
		if !fault.Is(err, fault.Exhausted) {
			wrong("root %d cannot lease: %v", w.Root, err)
		}
		w.release() // there are too many
		return
	}
	if err := w.board.check(w.Root, gen, l); err != nil {
		wrong("root %d: %s was granted %+v: %v", w.Root, owner, l, err)
	}
	w.notes.put("lease", owner, "-", l)
}

func (w *worker) some() (string, record.Lease, bool) {
	for owner, l := range w.notes.leases { // in random order
		return owner, l, true
	}
	return "", record.Lease{}, false
}

func (w *worker) release() {
	for owner, l := range w.notes.pins {
		if rand.IntN(3) == 0 {
			w.notes.put("drop", owner, "-", l)
			w.unpin(l)
			w.pool.Release(owner)
			return
		}
		break
	}
	owner, l, ok := w.some()
	if !ok {
		return
	}
	w.notes.put("drop", owner, "-", l)
	w.board.free(w.Root, l) // what is released may be another's at once
	w.pool.Release(owner)
}

// messUp leaves a file, or a process, in the ranges of a lease and ends it. The
// record goes last, so that a killed worker ends it again.
func (w *worker) messUp() {
	owner, l, ok := w.some()
	if !ok || len(w.mess) > 4 {
		return
	}
	dir := filepath.Join(w.Litter, owner)
	id := int(l.Base) + rand.IntN(int(l.Size))
	m := mess{path: filepath.Join(dir, "below", "file"), lease: l}
	var left []string
	if os.Geteuid() != 0 || rand.IntN(2) == 0 {
		m.path, m.away = w.process(owner, l)
	} else {
		left = []string{dir, filepath.Join(dir, "none")}
		if err := errors.Join(os.MkdirAll(filepath.Dir(m.path), 0o700), os.WriteFile(m.path, nil, 0o600), os.Lchown(m.path, id, 0)); err != nil {
			panic(err)
		}
	}
	w.mess = append(w.mess, m)
	rangesIn(l, func(r uint64) {
		if uint64(id)/rangeIDs == r || left == nil {
			w.board.dirty[r].Store(w.Root + 1)
		}
	})
	w.board.free(w.Root, l)
	w.pool.Release(owner, left...)
	w.notes.put("drop", owner, "-", l)
}

// process adds a process in the ranges of a lease to the list, at once.
func (w *worker) process(owner string, l record.Lease) (path, away string) {
	away = filepath.Join(w.Litter, "p"+owner)
	e := ranges(l)
	text := fmt.Appendf(nil, "0 %d %d\n", e.from, e.to-e.from)
	path = filepath.Join(w.Config.Proc, fmt.Sprint(w.next*10+int(w.Root)))
	w.next++
	err := errors.Join(os.MkdirAll(away, 0o700),
		os.WriteFile(filepath.Join(away, "uid_map"), text, 0o600), os.WriteFile(filepath.Join(away, "gid_map"), text, 0o600),
		os.Rename(away, path))
	if err != nil {
		panic(err)
	}
	return path, away
}

func (w *worker) cleanUp() {
	if len(w.mess) == 0 {
		return
	}
	m := w.mess[0]
	w.mess = w.mess[1:]
	// Said first: from then on the ranges may be leased.
	rangesIn(m.lease, func(r uint64) { w.board.dirty[r].CompareAndSwap(w.Root+1, 0) })
	if m.away == "" {
		_ = os.RemoveAll(filepath.Dir(filepath.Dir(m.path)))
	} else {
		_ = os.Rename(m.path, m.away)
		_ = os.RemoveAll(m.away)
	}
	w.pool.rush()
}

func (w *worker) rename() {
	owner, l, ok := w.some()
	if !ok {
		return
	}
	other := w.name()
	w.pool.Rename(owner, other)
	w.notes.put("rename", owner, other, l)
}

// pinSome holds or shares some ids, of a lease, or anywhere in the pool.
func (w *worker) pinSome() {
	if len(w.notes.pins) > 5 {
		return
	}
	share := rand.IntN(2) == 0
	l := record.Lease{Base: w.Config.First + idmap.Host(rand.IntN(int(w.Config.Last-w.Config.First))), Size: uint32(1 + rand.IntN(2*rangeIDs))}
	if _, of, ok := w.some(); ok && share && rand.IntN(2) == 0 {
		l = of
	}
	owner := w.name()
	if w.pin(owner, l, share) {
		w.notes.put(map[bool]string{true: "share", false: "hold"}[share], owner, "-", l)
	}
}

// pin holds or shares ids, and checks that what is held is nobody's lease.
func (w *worker) pin(owner string, l record.Lease, share bool) bool {
	pair, err := idmap.Range(l.Base, l.Size)
	if err != nil {
		panic(err)
	}
	pin := w.pool.Hold
	if share {
		pin = w.pool.Share
	}
	if err := pin(owner, pair); err != nil {
		if !fault.Is(err, fault.Conflict) {
			wrong("root %d cannot hold %+v: %v", w.Root, l, err)
		}
		return false
	}
	rangesIn(l, func(r uint64) {
		if !slices.ContainsFunc(w.pool.slabs, func(s *slab) bool { return s.number == int(r/slabRanges) }) {
			return // others' slab, or outside of the pool: nothing is promised
		}
		w.board.pinned[r].Or(1 << w.Root)
		if by := w.board.leased[r].Load(); by != 0 && !share {
			wrong("root %d: %s holds range %d, which is leased to root %d", w.Root, owner, r, by-1)
		}
	})
	return true
}

// unpin takes back from the board what no other record of this root holds.
func (w *worker) unpin(l record.Lease) {
	rangesIn(l, func(r uint64) {
		for _, o := range w.notes.pins {
			if e := ranges(o); e.has(r * rangeIDs) {
				return
			}
		}
		w.board.pinned[r].And(^(1 << w.Root))
	})
}
