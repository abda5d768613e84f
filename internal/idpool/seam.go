package idpool

import (
	"fief/internal/idpool/hostids"
	"fief/internal/words/idmap"
)

// nss returns which ids of ranges in slabs a name service knows.
func (p *Pool) nss(numbers ...int) (extents, error) {
	if h, ok := any(p.host).(interface {
		nss([]idmap.Host) (extents, error)
	}); ok {
		return h.nss(bases(numbers...))
	}
	return nil, nil
}

// liveClaims returns what processes use, with their commands.
func (p *Pool) liveClaims() ([]hostids.Claim, error) {
	if h, ok := any(p.host).(interface {
		liveClaims() ([]hostids.Claim, error)
	}); ok {
		return h.liveClaims()
	}
	return nil, nil
}

// claimsOf returns who has ids by what the host's files say.
func claimsOf(f facts) []hostids.Claim {
	return nil
}
