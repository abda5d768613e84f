package snapshot

import (
	"context"
	"log/slog"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/probe"
)

// Probe tries every way of the ladder on the file system of dir, a directory of
// the caller's, and says what came of each, best first. It is for a report:
// Open stops at the first way that holds. What it leaves below dir is the
// caller's to remove.
func Probe(dir string) (answers []probe.Answer, err error) {
	s := &Store{path: dir, ctx: context.Background()}
	if s.root, err = at.Dir(dir); err != nil {
		return nil, err
	}
	defer func() { fd.CloseAll(s.root, s.build) }()
	if s.build, err = at.EnsureDir(s.root, "building"); err != nil {
		return nil, err
	}
	if s.drops, err = newDropper(s.root, slog.New(slog.DiscardHandler)); err != nil {
		return nil, err
	}
	defer s.drops.close()
	for _, r := range ladder {
		m, a := s.try(r)
		if a.Verdict == probe.Yes {
			m.Close()
		}
		answers = append(answers, a)
	}
	return answers, nil
}
