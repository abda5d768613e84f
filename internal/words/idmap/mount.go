package idmap

import (
	"strconv"
	"strings"

	"fief/internal/words/fault"
)

// MountSpan is a piece of a mount's own map: N ids from Disk on, as they are
// stored, appear as those from Host on. Relative: Host is an id of the
// container's.
type MountSpan struct {
	Disk, Host, N uint32
	Relative      bool
}

// maxMountText bounds what ParseMount reads: 340 extents of 32 digits.
const maxMountText = 16 << 10

// ParseMount reads the map of a mount as podman-run(1) has it, "idmap=":
// "uids=DISK-HOST-LENGTH#…;gids=…", where a range with an @ before it is
// relative to the container's map. A half that is not given is nil.
func ParseMount(text string) (uid, gid []MountSpan, err error) {
	if len(text) > maxMountText {
		return nil, nil, badMount(text[:64]+"…", "it is too long")
	}
	for part := range strings.SplitSeq(text, ";") {
		key, list, ok := strings.Cut(part, "=")
		to := &uid
		if key == "gids" {
			to = &gid
		}
		if !ok || key != "uids" && key != "gids" || *to != nil {
			return nil, nil, badMount(part, "it must be uids= or gids=, each once")
		}
		for item := range strings.SplitSeq(list, "#") {
			s, err := parseMountSpan(item)
			if err != nil {
				return nil, nil, err
			}
			*to = append(*to, s)
		}
	}
	return uid, gid, nil
}

func parseMountSpan(item string) (s MountSpan, err error) {
	text, relative := strings.CutPrefix(item, "@")
	fields := strings.Split(text, "-")
	if len(fields) != 3 {
		return s, badMount(item, "it must be three numbers")
	}
	for i, to := range []*uint32{&s.Disk, &s.Host, &s.N} {
		n, err := strconv.ParseUint(fields[i], 10, 32)
		if err != nil {
			return s, badMount(item, "it must be three numbers up to 4294967294")
		}
		*to = uint32(n)
	}
	s.Relative = relative
	return s, Span{Inside(s.Disk), Host(s.Host), s.N}.check()
}

func badMount(text, why string) error {
	return fault.New(fault.Invalid, "use idmap", text, why, "write idmap, or idmap=uids=STORED-HOST-LENGTH[#…];gids=…, with @ before ranges whose HOST is an id of the container")
}

// MountMap makes the map of a mount: inside ids are those stored. own is the
// container's map, of which nothing else is left when it is zero; without spans
// the result is own. Ids of the container that it does not have are Invalid.
func MountMap(spans []MountSpan, own Map) (Map, error) {
	if own.IsZero() {
		own = Map{[]Span{{0, 0, Max + 1}}}
	}
	if spans == nil {
		return own, nil
	}
	var out []Span
	for _, s := range spans {
		if !s.Relative {
			out = append(out, Span{Inside(s.Disk), Host(s.Host), s.N})
			continue
		}
		if !own.Covers(Inside(s.Host), s.N) {
			return Map{}, badMount("@"+Span{Inside(s.Disk), Host(s.Host), s.N}.String(), "the container has not all of these ids")
		}
		one, err := Map{[]Span{{Inside(s.Disk), Host(s.Host), s.N}}}.Compose(own)
		if err != nil {
			return Map{}, err
		}
		out = append(out, one.spans...)
	}
	return New(out...)
}

// Matching makes the map of a mount on which the id that is stored as owner
// appears as host, and what belongs to the ids of a container, own, appears as
// it is. Everything else is not mapped.
func Matching(owner, host Host, own Map) (Map, error) {
	plain := []Span{{0, 0, Max + 1}}
	if !own.IsZero() {
		plain = nil
		for _, s := range own.spans {
			plain = append(plain, Span{Inside(s.Out), s.Out, s.N})
		}
	}
	same, err := New(plain...)
	if err != nil {
		return Map{}, err
	}
	return same.With(Map{[]Span{{Inside(owner), host, 1}}})
}
