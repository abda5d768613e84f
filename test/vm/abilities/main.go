// Command abilities tries, on the running kernel, each thing that fief uses or
// would use if it were there, and prints what came of it, for docs/kernel.md:
//
//	abilities DIR…
//
// with one directory on each file system of interest. It needs root and a mount
// namespace of its own (unshare -m).
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/cgroup"
	"fief/internal/snapshot"
	"fief/internal/snapshot/shift"
)

// ability is one thing to try, in a directory of its own.
type ability struct {
	name  string
	since string
	use   string // what fief does with it, and without it
	try   func(dir string) error
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == attachHere {
		attachNow(os.Args[2])
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "abilities:", err)
		os.Exit(1)
	}
}

func run(dirs []string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	tree, err := cgroup.Detect()
	if err != nil {
		return err
	}
	defer tree.Close()
	fmt.Printf("kernel\t%s\n", unix.ByteSliceToString(u.Release[:]))
	fmt.Printf("cgroup\tversion %s\n", tree.Mode())
	for _, a := range abilities {
		answer, err := attempt(a)
		if err != nil {
			return err
		}
		fmt.Printf("ability\t%s\t%s\t%s\t%s\n", a.name, a.since, a.use, answer)
	}
	for _, dir := range dirs {
		if err := ways(dir); err != nil {
			return err
		}
	}
	return nil
}

func attempt(a ability) (string, error) {
	dir, err := os.MkdirTemp("", "abilities-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	return word(a.try(dir)), nil
}

// word is "yes", or the name of the error.
func word(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "yes"
	case errors.As(err, &errno):
		return "no (" + unix.ErrnoName(errno) + ")"
	}
	return "no (" + err.Error() + ")"
}

// ways prints, for the file system of dir, what each way of shifting says when
// it is forced, and which one is chosen.
func ways(dir string) error {
	fs, err := fsName(dir)
	if err != nil {
		return err
	}
	for _, way := range []shift.Way{"", shift.Idmapped, shift.Attached, shift.Metacopy, shift.Reflink, shift.Copy} {
		root, err := os.MkdirTemp(dir, "abilities-")
		if err != nil {
			return err
		}
		fmt.Printf("way\t%s\t%s\t%s\n", fs, way, wayAnswer(root, way))
		if err := os.RemoveAll(root); err != nil {
			return err
		}
	}
	return nil
}

func wayAnswer(root string, way shift.Way) string {
	s, err := snapshot.Open(root, snapshot.Options{Force: way, Stock: 1})
	if err != nil {
		return strings.ReplaceAll(err.Error(), root, "…")
	}
	defer s.Close()
	got, why := s.Way()
	if way != "" {
		return "yes"
	}
	return got + "\t" + strings.ReplaceAll(why, root, "…")
}

// fsName is the type of dir's file system as /proc/self/mounts has it.
func fsName(dir string) (string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	name, longest := "", -1
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		on := strings.TrimSuffix(f[1], "/") + "/"
		if strings.HasPrefix(dir+"/", on) && len(on) >= longest {
			name, longest = f[2], len(on)
		}
	}
	return name, nil
}
