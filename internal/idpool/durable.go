package idpool

import (
	"errors"
	"os"
	"path/filepath"
)

// steps is told of every step after which what is on disk differs. The tests
// end the process there. The zero value tells nobody.
type steps func(name string)

func (s steps) at(name string) {
	if s != nil {
		s(name)
	}
}

// create makes a file that is complete whenever it is there, also after a
// crash. It fails when the file exists already.
func (s steps) create(path string, text []byte) error {
	fresh, err := s.writeFresh(path, text)
	if err != nil {
		return err
	}
	err = os.Link(fresh, path)
	s.at("linked")
	if err := errors.Join(err, os.Remove(fresh)); err != nil {
		return err
	}
	s.at("created")
	return syncDir(filepath.Dir(path))
}

// replace gives a file new content so that at any time, also after a crash, it
// has either all of the old or all of the new.
func (s steps) replace(path string, text []byte) error {
	fresh, err := s.writeFresh(path, text)
	if err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	s.at("replaced")
	return syncDir(filepath.Dir(path))
}

// writeFresh writes a synced file beside path. Only one process at a time may
// do so in a directory. What a killed one left is unlinked, not overwritten: it
// may have become a claim already.
func (s steps) writeFresh(path string, text []byte) (string, error) {
	fresh := filepath.Join(filepath.Dir(path), ".new")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	s.at("fresh file opened")
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(fresh))
	}
	s.at("fresh file written")
	return fresh, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
