package idpool

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

const (
	claimPrefix = "slab-"
	claimHeader = "fief-ids 1"
	maxClaim    = 8192 // bytes: a path and a little
)

// lockWait is how long a daemon waits for another one that is claiming, which
// takes milliseconds unless that one is stopped.
const lockWait = 10 * time.Second

// claim is what a claim file says.
type claim struct {
	id     string // of the data root
	root   string // its path
	ranges uint64 // that may be leased
}

// claims is the directory of claims, seen by the daemon of one data root.
type claims struct {
	dir, id, root string
	steps         steps
}

func (c claims) path(number int) string {
	return filepath.Join(c.dir, claimPrefix+strconv.FormatUint(uint64(number)*slabIDs, 10))
}

func (c claims) mine(o claim) bool { return o.id == c.id && o.root == c.root }

// lock makes this process the only one that changes claims until it calls
// unlock. The kernel releases the lock of a process that ends.
func (c claims) lock() (unlock func(), err error) {
	const op = "lock id claims in"
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Unavailable, op, c.dir, err, "")
	}
	f, err := os.OpenFile(filepath.Join(c.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, op, c.dir, err, "")
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			f.Close()
			return nil, fault.Wrap(fault.Busy, op, c.dir, err, "another fief daemon holds it: is one stopped or hung?")
		}
	}
}

// locked is lock, and the claims as they are until unlock.
func (c claims) locked() (all map[int]claim, unlock func(), err error) {
	unlock, err = c.lock()
	if err != nil {
		return nil, nil, err
	}
	if all, err = c.list(); err != nil {
		unlock()
		return nil, nil, err
	}
	c.steps.at("claims locked")
	return all, unlock, nil
}

// list reads all claims. One that cannot be understood belongs to nobody known
// and is never taken over.
func (c claims) list() (map[int]claim, error) {
	const op = "read id claims in"
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, os.ErrNotExist) {
		return map[int]claim{}, nil
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, op, c.dir, err, "")
	}
	out := map[int]claim{}
	for _, entry := range entries {
		number, ok := slabOf(entry.Name())
		if !ok {
			continue
		}
		text, err := os.ReadFile(filepath.Join(c.dir, entry.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fault.Wrap(fault.Unavailable, op, c.dir, err, "")
		}
		out[number], _ = parseClaim(text)
	}
	return out, nil
}

// slabOf reads the number of the slab from the name of a claim file.
func slabOf(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, claimPrefix)
	base, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || base%slabIDs != 0 || strconv.FormatUint(base, 10) != digits {
		return 0, false
	}
	return int(base / slabIDs), true
}

func (c claim) String() string {
	return fmt.Sprintf("%s\nid %s\nroot %q\nranges %016x\n", claimHeader, c.id, c.root, c.ranges)
}

// parseClaim reads what String prints; false for anything else, with every
// range leasable so that nobody else touches one.
func parseClaim(text []byte) (claim, bool) {
	unknown := claim{ranges: ^uint64(0)}
	lines := strings.Split(string(text[:min(len(text), maxClaim)]), "\n")
	if len(lines) < 4 || lines[0] != claimHeader {
		return unknown, false
	}
	id, ok1 := strings.CutPrefix(lines[1], "id ")
	quoted, ok2 := strings.CutPrefix(lines[2], "root ")
	mask, ok3 := strings.CutPrefix(lines[3], "ranges ")
	root, err1 := strconv.Unquote(quoted)
	ranges, err2 := strconv.ParseUint(mask, 16, 64)
	if !ok1 || !ok2 || !ok3 || err1 != nil || err2 != nil || !isID(id) || !filepath.IsAbs(root) {
		return unknown, false
	}
	return claim{id, root, ranges}, true
}

// vanished reports whether the data root of a claim no longer exists, or is
// another one by now. When that cannot be told, it still exists.
func (o claim) vanished() bool {
	if o.root == "" {
		return false
	}
	text, err := os.ReadFile(filepath.Join(o.root, idFile))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return true
	}
	id := strings.TrimSpace(string(text))
	return err == nil && isID(id) && id != o.id
}

// standing returns the slabs whose claims still hold: those of data roots that
// exist.
func standing(all map[int]claim) map[int]bool {
	type root struct{ id, path string }
	gone := map[root]bool{}
	out := make(map[int]bool, len(all))
	for number, c := range all {
		r := root{c.id, c.root}
		if _, known := gone[r]; !known {
			gone[r] = c.vanished()
		}
		if !gone[r] {
			out[number] = true
		}
	}
	return out
}

// add claims a slab that nobody has claimed. Preconditions: the lock is held.
// On success the claim has reached the disk.
func (c claims) add(number int, ranges uint64) error {
	text := claim{c.id, c.root, ranges}.String()
	err := c.steps.create(c.path(number), []byte(text))
	return fault.Wrap(fault.Unavailable, "claim ids", c.path(number), err, "")
}

// take claims a slab whatever claim there is. Preconditions: the lock is held,
// and the slab is this daemon's or that of a vanished data root. On success the
// claim has reached the disk.
func (c claims) take(number int, ranges uint64) error {
	text := claim{c.id, c.root, ranges}.String()
	err := c.steps.replace(c.path(number), []byte(text))
	return fault.Wrap(fault.Unavailable, "claim ids", c.path(number), err, "")
}

// drop removes a claim. Preconditions: the lock is held.
func (c claims) drop(number int) error {
	err := os.Remove(c.path(number))
	c.steps.at("claim dropped")
	return fault.Wrap(fault.Unavailable, "drop claim of ids", c.path(number), err, "")
}

const idFile = "id"

// rootID returns the random name of a data root, which it makes when the root
// has none. Preconditions: no other process works in the root.
func rootID(root string, s steps) (string, error) {
	const op = "read id of data root"
	path := filepath.Join(root, idFile)
	text, err := os.ReadFile(path)
	if err == nil {
		if id := strings.TrimSpace(string(text)); isID(id) {
			return id, nil
		}
		return "", fault.New(fault.Corrupt, op, path, "it is not 32 hexadecimal digits",
			"restore it; if you remove it, the daemon forgets which ids are its own")
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fault.Wrap(fault.Unavailable, op, path, err, "")
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand
	id := hex.EncodeToString(random[:])
	if err := s.create(path, []byte(id+"\n")); err != nil {
		return "", fault.Wrap(fault.Unavailable, "name data root in", path, err, "")
	}
	return id, nil
}

func isID(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == 16 && !bytes.ContainsAny([]byte(s), "ABCDEF")
}
