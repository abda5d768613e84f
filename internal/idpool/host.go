package idpool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"fief/internal/idpool/hostids"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// poolUser is the owner of the lines in subuid and subgid that, when present,
// are the pool.
const poolUser = "fief"

// host is what the pool asks the host about its ids.
type host struct {
	ids   hostids.Files
	watch *hostids.Watch
	// told are the warnings that have been said: each is said once.
	told *sync.Map

	subuid, subgid string // where lines of the pool's user would be
}

func hostOf(cfg Config) host {
	ids := hostids.Files{SubUID: cfg.SubUID, SubGID: cfg.SubGID, Passwd: cfg.Passwd, Group: cfg.Group,
		Proc: cfg.Proc, NSSwitch: cfg.NSSwitch, Root: cfg.Root}
	watch := ids.Watch()
	return host{ids: ids, watch: &watch, told: &sync.Map{},
		subuid: cmp.Or(cfg.SubUID, "/etc/subuid"), subgid: cmp.Or(cfg.SubGID, "/etc/subgid")}
}

// signature tells whether something that read reads has changed.
type signature = hostids.Signature

func (h host) signature() signature { return h.watch.Signature() }

// facts is what the files of the host and the state of other engines say.
type facts struct {
	taken  extents // ids given to others
	own    extents // ids of the pool's user
	named  bool    // the pool's user has a line: an administrator wants nothing else used
	claims []hostids.Claim
	// unknown is why the lines of the pool's user that a name service may have are
	// not known; nil when they are, or when the files have some.
	unknown error
}

func (h host) read() (facts, error) {
	f, err := h.ids.Read(context.Background())
	if err != nil {
		return facts{}, err
	}
	for _, text := range f.Warnings {
		h.warn(text)
	}
	out := facts{named: slices.Contains(f.Owners, poolUser), claims: f.Claims}
	if !out.named {
		out.unknown = f.Unknown
	}
	var taken []extent
	var own [2][]extent
	for _, c := range f.Claims {
		e := extent{c.From, c.To}
		if c.Kind != record.IDSub || c.Holder != poolUser {
			taken = append(taken, e)
			continue
		}
		for i, is := range [2]bool{c.UID, c.GID} {
			if is {
				own[i] = append(own[i], e)
			}
		}
	}
	out.taken = union(taken)
	out.own = union(own[0]).intersect(union(own[1]))
	return out, nil
}

func (h host) warn(text string) {
	if _, said := h.told.LoadOrStore(text, true); !said {
		slog.Warn("the host's ids are not all known", "reason", text)
	}
}

// live returns the ids that processes use.
func (h host) live() (extents, error) {
	claims, err := h.liveClaims()
	return extentsOf(claims), err
}

// liveClaims returns the ids that processes use, with the processes.
func (h host) liveClaims() ([]hostids.Claim, error) { return h.ids.Live() }

// nss returns the ids among the bases of ranges that name services give to
// users or groups; beside an error those that it knows.
func (h host) nss(bases []idmap.Host) (extents, error) {
	claims, err := h.ids.NSS(context.Background(), bases)
	return extentsOf(claims), err
}

// errSilent is what is wrong when a name service does not answer.
var errSilent = errors.New("it is not known whose they are")

// silent is errSilent with its reason and the way out.
func (h host) silent(err error) error {
	return fault.Wrap(fault.Unavailable, "take host ids for", "containers", fmt.Errorf("%w: %w", errSilent, err), fmt.Sprintf(
		"mend the name services, or say which ids containers may have: the same line %s:FIRST:COUNT in %s and %s", poolUser, h.subuid, h.subgid))
}

func extentsOf(claims []hostids.Claim) extents {
	var out []extent
	for _, c := range claims {
		out = append(out, extent{c.From, c.To})
	}
	return union(out)
}

// Claimed returns the ids that the fief daemons which share a directory of
// claims may lease, for hostids.Files. An empty name stands for the default.
func Claimed(claimDir string) ([]hostids.Claim, error) {
	dir := Config{ClaimDir: claimDir}.withPaths().ClaimDir
	all, err := claims{dir: dir}.list()
	if err != nil {
		return nil, err
	}
	var out []hostids.Claim
	for number, c := range all {
		for i := range uint64(slabRanges) {
			if c.ranges>>i&1 == 1 {
				from := uint64(number)*slabIDs + i*rangeIDs
				out = append(out, hostids.Claim{From: from, To: from + rangeIDs, UID: true, GID: true,
					Kind: record.IDDaemon, Holder: c.root, Source: claims{dir: dir}.path(number)})
			}
		}
	}
	return out, nil
}
