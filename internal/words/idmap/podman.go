package idmap

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Kind is one of the two kinds of ids.
type Kind byte

// The kinds, by the flag that keeps an entry to one.
const (
	UID Kind = 'u'
	GID Kind = 'g'
)

// String is the kind's name in capitals.
func (k Kind) String() string {
	if k == GID {
		return "GID"
	}
	return "UID"
}

// Grammar reads maps as Podman's flags have them (podman-run(1), "--uidmap").
// The zero Grammar is that of root, to whom every id of the host is itself.
//
// Parent is that of a user without privileges: the maps of the namespace that
// the user's ids were gathered in, from ids there (0 the user, then those lent
// by /etc/subuid) to ids of the host. The host ids of a result are ids there,
// too: compose it with Parent for those of the host.
type Grammar struct{ Parent *Pair }

// ParsePair is Grammar.ParsePair for root.
func ParsePair(uids, gids []string) (Pair, error) { return Grammar{}.ParsePair(uids, gids) }

// maxEntries bounds the work that one request can ask for: a map has 340
// extents, and no sensible list cuts each of them out of a dozen others.
const maxEntries = 16 * MaxExtents

// ParsePair reads the values of repeated --uidmap and --gidmap flags: entries
//
//	[+][u][g]CONTAINER_ID:[@]HOST_ID[:LENGTH]
//
// separated by commas, or joined by colons in threes. Kinds that were not given
// get the other kind's entries. u and g keep an entry to one kind. + cuts out of
// all entries before it what it overlaps on either side. @ says that the id is
// one of the host, which is translated through Parent. A missing LENGTH is 1.
//
// With a Parent, a list that begins with + is filled up: ids of Parent that no
// entry has used are given to unused container ids, lowest first. So is a list
// of which nothing is for the kind.
//
// Errors are of class Invalid and name the entry. Refused where Podman is
// silent: entries without + that overlap, a LENGTH of 0, ids past 4294967294,
// more extents or text than the kernel takes (see New).
func (g Grammar) ParsePair(uids, gids []string) (Pair, error) {
	if len(uids) == 0 {
		uids = gids
	}
	if len(gids) == 0 {
		gids = uids
	}
	uid, err := g.parse(UID, uids)
	if err != nil {
		return Pair{}, err
	}
	gid, err := g.parse(GID, gids)
	if err != nil {
		return Pair{}, err
	}
	return Pair{UID: uid, GID: gid}, nil
}

// ParseTriples reads the values of --userns=auto:uidmapping= or gidmapping=:
// one entry CONTAINER_ID:[@]HOST_ID:LENGTH each, without flags. Errors are of
// class Invalid and name the entry.
func (g Grammar) ParseTriples(kind Kind, values []string) (Map, error) {
	l := list{grammar: g, kind: kind}
	for _, text := range values {
		if strings.Count(text, ":") != 2 {
			return Map{}, badEntry(text, "it is not three numbers", tripleEntries)
		}
		if text[0] == '+' || text[0] == 'u' || text[0] == 'g' {
			return Map{}, badEntry(text, "flags have no meaning here", tripleEntries)
		}
		if err := l.add(text); err != nil {
			return Map{}, err
		}
	}
	return own(lay(l.entries))
}

func (g Grammar) parse(kind Kind, values []string) (Map, error) {
	l := list{grammar: g, kind: kind, entries: make([]entry, 0, len(values))}
	for _, value := range values {
		if err := l.addAll(value); err != nil {
			return Map{}, err
		}
	}
	spans := lay(l.entries)
	if g.Parent != nil && len(values) > 0 && (len(spans) == 0 || l.entries[0].over) {
		spans = fill(spans, l.free(spans))
	}
	return own(spans)
}

// list is the entries for one kind, as far as they are read.
type list struct {
	grammar Grammar
	kind    Kind
	entries []entry
	lent    []Span // the parent's, by host id, once an entry has asked for them
}

// addAll reads a value: entries between commas, and of more than three fields
// in a multiple of three each three.
func (l *list) addAll(value string) error {
	for more := true; more; {
		var group string
		group, value, more = strings.Cut(value, ",")
		for n := strings.Count(group, ":") + 1; n > 3 && n%3 == 0; n -= 3 {
			end := thirdColon(group)
			if err := l.add(group[:end]); err != nil {
				return err
			}
			group = group[end+1:]
		}
		if err := l.add(group); err != nil {
			return err
		}
	}
	return nil
}

func thirdColon(text string) int {
	seen := 0
	for i := range len(text) {
		if text[i] == ':' {
			if seen++; seen == 3 {
				return i
			}
		}
	}
	return len(text)
}

// add reads one entry, and skips it when it is for the other kind.
func (l *list) add(text string) error {
	flags, plain := cutFlags(text)
	fields, why := fieldsOf(plain)
	if why != "" {
		return badEntry(text, why, podmanEntries)
	}
	var ofHost bool
	fields[1], ofHost = strings.CutPrefix(fields[1], "@")
	s, why := spanOf(fields)
	switch {
	case fields[0] == "":
		why = "it has no container id"
	case fields[1] == "":
		why = "it has no host id"
	case isLetter(fields[0][0]):
		why = fmt.Sprintf("unknown flag %q", fields[0][0])
	case why == "":
		if err := s.check(); err != nil {
			why = causeOf(err)
		}
	}
	if why != "" {
		return badEntry(text, why, podmanEntries)
	}
	other := UID + GID - l.kind
	if strings.IndexByte(flags, byte(other)) >= 0 && strings.IndexByte(flags, byte(l.kind)) < 0 {
		return nil
	}
	over := strings.IndexByte(flags, '+') >= 0 // again and again is once
	if !ofHost || l.grammar.Parent == nil {
		l.entries = append(l.entries, entry{s, over})
	} else if err := l.addOfHost(text, s, over); err != nil {
		return err
	}
	if len(l.entries) > maxEntries {
		return badEntry(text, fmt.Sprintf("more than %d entries come before it", maxEntries), podmanEntries)
	}
	return nil
}

func cutFlags(text string) (flags, plain string) {
	for i := range len(text) {
		if c := text[i]; c != '+' && c != byte(UID) && c != byte(GID) {
			return text[:i], text[i:]
		}
	}
	return text, ""
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// addOfHost adds s with its host ids translated through the parent, one entry
// for each extent of the parent that it touches.
func (l *list) addOfHost(text string, s Span, over bool) error {
	todo := s.hosts()
	if l.lent == nil {
		l.lent = l.parent().byHost()
	}
	first, _ := slices.BinarySearchFunc(l.lent, todo.from+1, func(p Span, to uint64) int { return cmp.Compare(p.hosts().to, to) })
	for _, p := range l.lent[first:] {
		shared := todo.and(p.hosts())
		if shared.from >= shared.to || shared.from > todo.from {
			break
		}
		piece := s.part(shared.from-uint64(s.Out), shared.to-shared.from)
		piece.Out = Host(p.In) + Host(shared.from-uint64(p.Out))
		l.entries = append(l.entries, entry{piece, over})
		todo.from = shared.to
	}
	if todo.from < todo.to {
		return badEntry(text, fmt.Sprintf("parent ID %s %d is not mapped/delegated", l.kind, todo.from), podmanEntries)
	}
	return nil
}

func (l *list) parent() Map {
	if l.kind == GID {
		return l.grammar.Parent.GID
	}
	return l.grammar.Parent.UID
}

// free is the parent's ids that spans leave.
func (l *list) free(spans []Span) ranges {
	var all, used ranges
	for _, s := range l.parent().spans {
		all = all.add(s.insides())
	}
	for _, s := range spans {
		used = used.add(s.hosts())
	}
	return all.minus(used)
}
