package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func copyCommands() []Command {
	return []Command{{
		Name: "cp", Use: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tfief cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem",
		Long: "Use '-' as the source to read a tar archive from stdin and extract it to a\ndirectory destination in a container, or as the destination to stream a tar\n" +
			"archive of a container source to stdout. Owners: see --archive. Set-id bits are\nnot given to local files, and device nodes are not copied.",
		Min: 2, Max: 2, Objects: containers, Setup: setupCopy,
	}}
}

// copying is one cp command.
type copying struct {
	*Client
	container   string
	keepOwners  bool
	followLinks bool
	quiet       bool
	bytes       int64 // of content copied
	failed      bool  // something was left out, and said
}

func setupCopy(fs *pflag.FlagSet) action {
	keep := fs.BoolP("archive", "a", false, "Archive mode (copy all uid/gid information)")
	follow := fs.BoolP("follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	quiet := fs.BoolP("quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	return func(c *Client, args []string) error {
		p := &copying{Client: c, keepOwners: *keep, followLinks: *follow, quiet: *quiet || !isTerminal(c.Err)}
		from, src := splitCopy(args[0])
		to, dst := splitCopy(args[1])
		var err error
		switch {
		case from != "" && to != "":
			return fault.Say(fault.Invalid, "copying between containers is not supported")
		case from != "":
			p.container = from
			err = p.out(src, dst)
		case to != "":
			p.container = to
			err = p.in(src, dst)
		default:
			return fault.Say(fault.Invalid, "must specify at least one container source")
		}
		if err == nil && p.failed {
			return status(1)
		}
		if err == nil && !p.quiet && args[1] != "-" {
			fmt.Fprintf(c.Err, "Successfully copied %s to %s\n", show.Bytes(p.bytes), args[1])
		}
		return err
	}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// splitCopy takes CONTAINER:PATH apart; without a container it is a local path.
// A local name with a colon is written with its directory: ./a:b.
func splitCopy(word string) (container, name string) {
	container, name, ok := strings.Cut(word, ":")
	if !ok || strings.HasPrefix(word, "/") || strings.HasPrefix(container, ".") {
		return "", word
	}
	return container, name
}

// end is what docker's rules depend on at the end of a path.
type end struct {
	path   string
	exists bool
	dir    bool
}

// assertsDir reports whether a path says that it is a directory's.
func assertsDir(name string) bool { return strings.HasSuffix(name, "/") || wantsContent(name) }

// wantsContent reports whether what is in a directory is meant, not the
// directory: SRC_PATH/.
func wantsContent(name string) bool { return name == "." || strings.HasSuffix(name, "/.") }

// placeFor decides, by the table in docker-cp(1), into which directory src is
// copied and under which name; "." is for the content of a directory.
func placeFor(src string, srcDir bool, dst end) (dir, name string, err error) {
	clean := path.Clean(dst.path)
	switch {
	case dst.exists && dst.dir && wantsContent(src):
		return dst.path, ".", nil
	case dst.exists && dst.dir:
		return dst.path, baseOf(src), nil
	case dst.exists && srcDir:
		return "", "", fault.Say(fault.Invalid, "cannot copy directory")
	case dst.exists && assertsDir(dst.path):
		return "", "", fault.Say(fault.Invalid, "not a directory")
	case !dst.exists && !srcDir && assertsDir(dst.path):
		return "", "", fault.Say(fault.NotFound, "no such directory")
	}
	return path.Dir(clean), path.Base(clean), nil
}

// baseOf is the name under which a path is copied; the root has none.
func baseOf(name string) string {
	if base := path.Base(name); base != "/" {
		return base
	}
	return "."
}

// rename puts first in place of the first part of an archive's name, which is
// empty when the root was copied.
func rename(entry, first string) string {
	_, rest, _ := strings.Cut(entry, "/")
	return path.Join(first, rest)
}

// stat looks at a path in the container; what is not there is no error, but a
// container that is not there is: it would have a root.
func (p *copying) stat(name string) (st record.PathStat, exists bool, err error) {
	err = p.call(wire.StatPath, wire.PathCall{ID: p.container, Path: name}, &st)
	if fault.Is(err, fault.NotFound) {
		var root record.PathStat
		return st, false, p.call(wire.StatPath, wire.PathCall{ID: p.container, Path: "/"}, &root)
	}
	return st, err == nil, err
}

// local looks at a path of this machine's, behind symbolic links; a link to
// nothing stands for what it names.
func local(name string) (end, error) {
	for range 10 {
		st, err := os.Stat(name)
		if err == nil {
			if !st.IsDir() && !st.Mode().IsRegular() {
				return end{}, fault.Say(fault.Invalid, fmt.Sprintf("invalid output path: %q must be a directory or a regular file", name))
			}
			if target, err := filepath.EvalSymlinks(name); err == nil && !st.IsDir() {
				name = target
			}
			return end{name, true, st.IsDir()}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			if errors.Is(err, errNotDir) {
				return end{}, fault.Say(fault.Invalid, "not a directory")
			}
			return end{}, fault.Say(fault.Invalid, err.Error())
		}
		target, err := os.Readlink(filepath.Clean(name))
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(filepath.Clean(name)), target)
		}
		name = target
	}
	parent := filepath.Dir(filepath.Clean(name))
	if st, err := os.Stat(parent); err != nil || !st.IsDir() {
		return end{}, fault.Say(fault.NotFound, fmt.Sprintf("invalid output path: directory %q does not exist", parent))
	}
	return end{path: name}, nil
}

// warn says what was left out.
func (p *copying) warn(name, why string) {
	p.failed = true
	fmt.Fprintf(p.Err, "fief: %s is not copied: %s\n", name, why)
}
