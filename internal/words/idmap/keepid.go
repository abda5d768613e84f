package idmap

// KeepID is the map of one kind in which the inside id keep is the caller
// (Podman's keep-id). Host ids are those of a namespace that a user without
// privileges has made: 0 is the user, and 1 to subIDs are the ids that
// /etc/subuid or /etc/subgid lends, in order. The lent ids become the inside
// ids from 0 upward and keep is left out of their way. size bounds the number
// of mapped ids, keep included; 0 does not. Without lent ids keep is all there
// is. The error is New's.
func KeepID(keep Inside, subIDs, size uint32) (Map, error) {
	if size > 0 {
		subIDs = min(subIDs, size-1)
	}
	below := min(uint32(keep), subIDs)
	spans := []Span{{In: keep, Out: 0, N: 1}}
	if below > 0 {
		spans = append(spans, Span{In: 0, Out: 1, N: below})
	}
	if above := subIDs - below; above > 0 {
		spans = append(spans, Span{In: keep + 1, Out: Host(below) + 1, N: above})
	}
	return own(spans)
}
