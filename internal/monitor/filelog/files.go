package filelog

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"fief/internal/words/fault"
)

// File is one file of a log: Number 0 is the current one, n its nth
// predecessor. Packed: it is compressed.
type File struct {
	Name   string
	Number int
	Packed bool
}

// Files returns the existing files of the log at path, oldest first. Of a file
// that is there in both forms, because it has just been compressed, the plain
// one.
func Files(path string) ([]File, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		if os.IsNotExist(err) {
			return nil, nil
		}
		return nil, fault.Wrap(fault.Internal, "list log files of", path, err, "")
	}
	byNumber := map[int]File{}
	highest := -1
	for _, entry := range entries {
		n, packed := number(entry, filepath.Base(path))
		if n < 0 {
			continue
		}
		if _, plain := byNumber[n]; plain && packed {
			continue
		}
		byNumber[n] = File{filepath.Join(filepath.Dir(path), entry.Name()), n, packed}
		highest = max(highest, n)
	}
	var files []File
	for n := highest; n >= 0; n-- {
		if f, ok := byNumber[n]; ok {
			files = append(files, f)
		}
	}
	return files, nil
}

// number returns 0 for the current file, n for its nth predecessor, -1 for
// anything else.
func number(entry fs.DirEntry, base string) (n int, packed bool) {
	rest, ok := strings.CutPrefix(entry.Name(), base)
	if !ok {
		return -1, false
	}
	if rest == "" {
		return 0, false
	}
	rest, packed = strings.CutSuffix(rest, packedEnding)
	if len(rest) < 2 || rest[0] != '.' {
		return -1, false
	}
	n, err := strconv.Atoi(rest[1:])
	if err != nil || n < 1 || n > 1<<20 || strconv.Itoa(n) != rest[1:] {
		return -1, false
	}
	return n, packed
}

// Remove removes the log at path and its rotated files. What is not there is
// no error.
func Remove(path string) error {
	files, err := Files(path)
	if err != nil {
		return err
	}
	names := []string{path + ".new", path + packedEnding + ".new"}
	for _, f := range files {
		names = append(names, f.Name)
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			return fault.Wrap(fault.Internal, "remove log", name, err, "")
		}
	}
	return nil
}
