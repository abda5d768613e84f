// Package idpool grants host ids to containers, and to nobody twice.
//
// The unit is the range: 65536 ids from a multiple of 65536 on, the same for
// uids and gids, which is what systemd asks of container managers
// (UIDS-GIDS.md). A lease is one range, or several neighbours when more ids are
// needed.
//
// Several daemons share the ranges of one host. Each claims whole slabs, of 64
// ranges, by files in a directory that all of them use (ClaimDir, one file for
// each claimed slab), and leases from its own slabs only. A claim is durable:
//
//	slab-4194304                      named by its first id
//	    fief-ids 1                    version of the format
//	    id 5a0f…                      as in the file id below the data root
//	    root "/var/lib/fief"
//	    ranges ffffffffffffffff       which of the 64 ranges may be leased, lowest bit first
//
// A claim holds as long as that data root exists and has that id. Leases
// themselves are not stored here: they are part of the containers' records,
// and Open is told of them.
//
// A range is never leased that a line of /etc/subuid or /etc/subgid, or a user
// or group of the host, lies in. Those files are read again when they have
// changed. Processes in user namespaces that nobody registered are looked for
// whenever a slab is claimed and before a range is leased a second time, and
// files of the range where its owner could have left some (Release).
package idpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// Config says where a pool gets its ids from. Zero values stand for the
// defaults named.
type Config struct {
	DataRoot string // of the daemon; has to exist, and be locked by the caller
	ClaimDir string // shared by all daemons of the host; default /var/lib/fief-ids

	// First and Last are the lowest ids of the first and of the last range. With
	// both zero, the ranges are the lines of user "fief" in SubUID and SubGID, or
	// without such lines systemd's range for containers, 524288 to 1878982656.
	First, Last idmap.Host

	SubUID, SubGID, Passwd, Group string // default /etc/subuid, /etc/subgid, /etc/passwd, /etc/group
	Proc                          string // default /proc
	NSSwitch                      string // default /etc/nsswitch.conf
	Root                          string // below which the state of other engines is looked for; default /

	// Quarantine keeps the ranges that wait until no file of theirs is left; nil
	// for those that nobody has to know of after this process.
	Quarantine documents

	steps steps
}

// Held is a lease that a container found at start already has.
type Held struct {
	Owner string
	Lease record.Lease
}

// Pool grants ranges to one daemon. Its methods may be called from any
// goroutine.
//
// Locks are taken in this order: growing, the lock of the claims (flock), reading,
// looking, mu. The last one is never held across I/O.
type Pool struct {
	cfg    Config
	host   host
	claims claims

	ctx    context.Context // ends with the pool
	cancel context.CancelFunc
	behind sync.WaitGroup // what works in the background
	wake   chan struct{}  // something for the keeper; see keep

	growing sync.Mutex // held while claims are changed
	reading sync.Mutex // held while the files of the host are read
	looking sync.Mutex // held while processes are looked at to free ranges

	mu       sync.Mutex
	closed   bool          // guarded by mu, as is all below
	trying   *attempt      // to make room; nil when nobody is
	spent    spent         // what the last attempt that found nothing says
	failed   time.Time     // when an attempt last failed
	changes  uint64        // goes up whenever there may be more room than before
	keeping  bool          // the keeper runs
	walking  bool          // files are being looked for
	walker   chan struct{} // closed when the last search for files has ended; nil before the first
	looks    looks         // for processes
	walked   time.Time     // when files were last looked for
	walkTook time.Duration

	seen   signature               // of the files that facts were read from
	facts  facts                   // what the host's files say
	taken  extents                 // ids that the host's files give to others
	areas  extents                 // ids that may be leased
	slabs  []*slab                 // claimed by this daemon, by number
	leases map[string]record.Lease // by owner
	pins   map[string]pin          // what explicit maps and shares use, by owner
	rests  map[string]*rest        // quarantined until no file is left, by key
	lost   []Held                  // held leases that could not be taken over
}

// Open makes the pool of the data root, claims its first slab, and takes over
// the leases of containers found at start. A held lease whose slab is claimed
// by another daemon, or that overlaps another held one, is not taken over: see
// Lost. Having no free range left is no error here but of Lease, and so is a name
// service that does not answer.
func Open(cfg Config, held []Held) (*Pool, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	id, err := rootID(cfg.DataRoot, cfg.steps)
	if err != nil {
		return nil, err
	}
	p := &Pool{
		cfg:    cfg,
		host:   hostOf(cfg),
		claims: claims{cfg.ClaimDir, id, cfg.DataRoot, cfg.steps},
		wake:   make(chan struct{}, 1),
		leases: map[string]record.Lease{},
		pins:   map[string]pin{},
		rests:  map[string]*rest{},
	}
	if err := p.begin(held); err != nil {
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waitingRanges() > 0 { // for processes that were found, or for files
		p.looks.after(lookSoon)
		p.wakeKeeper()
	}
	if len(p.slabs) > 0 {
		p.behind.Go(p.askNames)
	}
	return p, nil
}

// begin learns and claims what there is. Nothing works in the background yet.
func (p *Pool) begin(held []Held) error {
	if err := p.reread(); err != nil {
		return err
	}
	if err := p.takeOver(held); err != nil {
		return err
	}
	if err := p.restore(); err != nil {
		return err
	}
	if len(p.slabs) > 0 {
		return nil
	}
	err := p.claimFor(&attempt{n: 1, enough: p.hasFree, listed: make(chan struct{})})
	if errors.Is(err, errSilent) {
		p.host.warn(err.Error())
		return nil
	}
	if fault.Is(err, fault.Exhausted) {
		return nil
	}
	return err
}

// complete fills the defaults and refuses a pool that could have no range.
func (cfg Config) complete() (Config, error) {
	root, err := filepath.Abs(cfg.DataRoot)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return cfg, fault.Wrap(fault.NotFound, "open id pool of data root", cfg.DataRoot, err, "")
	}
	cfg.DataRoot = root
	cfg = cfg.withPaths()
	if cfg.First == 0 && cfg.Last == 0 {
		return cfg, nil
	}
	if cfg.First > cfg.Last || cfg.First < rangeIDs || cfg.First%rangeIDs != 0 || cfg.Last%rangeIDs != 0 || cfg.Last > lastBase {
		return cfg, fault.New(fault.Invalid, "use id pool", fmt.Sprintf("%d…%d", cfg.First, cfg.Last),
			"first and last have to be multiples of 65536, in order, from 65536 to 2147418112",
			"the default is 524288…1878982656")
	}
	return cfg, nil
}

func (cfg Config) withPaths() Config {
	cfg.ClaimDir = cmp.Or(cfg.ClaimDir, "/var/lib/fief-ids")
	cfg.SubUID = cmp.Or(cfg.SubUID, "/etc/subuid")
	cfg.SubGID = cmp.Or(cfg.SubGID, "/etc/subgid")
	cfg.Passwd = cmp.Or(cfg.Passwd, "/etc/passwd")
	cfg.Group = cmp.Or(cfg.Group, "/etc/group")
	cfg.Proc = cmp.Or(cfg.Proc, "/proc")
	return cfg
}

// Close stops what works in the background and waits for it; for a search for
// files no longer than two seconds, since a file system may hang. Leases, claims
// and quarantines stay. A closed pool still answers, but no longer prepares for
// later.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	walker := p.walker
	p.mu.Unlock()
	p.cancel()
	p.behind.Wait()
	if walker == nil {
		return
	}
	select {
	case <-walker:
	case <-time.After(2 * time.Second):
	}
}

// ID is the random name of the data root, 32 hexadecimal digits, made once and
// kept in its file "id".
func (p *Pool) ID() string { return p.claims.id }

// Lost returns the held leases that Open could not take over. Their ids may
// belong to containers of another daemon: a container that is not running can
// have a new lease; one that runs shares its ids until it has ended.
func (p *Pool) Lost() []Held {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lost)
}

// Info counts ranges: those leased by this daemon, those that it could lease
// now, in its own slabs and in slabs that no daemon has claimed, and those
// released that processes or files may be left of.
func (p *Pool) Info() record.PoolInfo {
	claimed, _ := p.claims.list() // unreadable: own slabs are all there is to count
	p.mu.Lock()
	defer p.mu.Unlock()
	var info record.PoolInfo
	if n := len(p.areas); n > 0 {
		info.First = idmap.Host(p.areas[0].from)
		info.Last = idmap.Host(p.areas[n-1].to - rangeIDs)
	}
	for _, s := range p.slabs {
		info.Granted += bits.OnesCount64(s.granted)
		info.Free += bits.OnesCount64(s.free())
		info.Quarantined += bits.OnesCount64(s.waiting())
	}
	for _, number := range p.areas.slabs() {
		_, other := claimed[number]
		if own := p.slab(number); claimed != nil && !other && own == nil {
			info.Free += bits.OnesCount64(p.fresh(number).free())
		}
	}
	return info
}
