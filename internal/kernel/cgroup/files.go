package cgroup

import (
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// read returns a control file without the white space around it, or a plain
// errno.
func read(root int, file string) (string, error) {
	fd, err := unix.Openat(root, file, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var text []byte
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if n == 0 {
			return strings.TrimSpace(string(text)), nil
		}
		text = append(text, buf[:n]...)
	}
}

// readUint reads a number; "max" is the largest there is.
func readUint(root int, file string) (uint64, error) {
	text, err := read(root, file)
	if err != nil {
		return 0, err
	}
	if text == "max" {
		return 1<<64 - 1, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, unix.EINVAL
	}
	return n, nil
}

// readTable reads a file of lines "NAME NUMBER".
func readTable(root int, file string) (map[string]uint64, error) {
	text, err := read(root, file)
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); ok && err == nil {
			out[name] = n
		}
	}
	return out, nil
}

// write writes a control file in one call, or returns a plain errno.
func write(root int, file, value string) error {
	fd, err := unix.Openat(root, file, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return writeTo(fd, value)
}

func writeInt(fd, n int) error { return writeTo(fd, strconv.Itoa(n)) }

func writeTo(fd int, value string) error {
	for {
		_, err := unix.Write(fd, []byte(value))
		if err != unix.EINTR {
			return err
		}
	}
}

// enable lets the groups in dir have controllers, and those above it on the way.
// Failures are left to be found by who needs one: not every kernel has every
// controller, and groups with processes cannot give theirs away (cgroups(7), "no
// internal processes").
func (t *Tree) enable(dir string, controllers ...string) {
	var above []string
	for at := dir; ; at = path.Dir(at) {
		above = append([]string{at}, above...)
		if at == "." {
			break
		}
	}
	for _, c := range controllers {
		t.mu.Lock()
		done := t.enabled[dir+" "+c]
		t.enabled[dir+" "+c] = true
		t.mu.Unlock()
		if done {
			continue
		}
		for _, at := range above {
			if write(t.fd(), at+"/cgroup.subtree_control", "+"+c) != nil {
				t.mu.Lock()
				delete(t.enabled, dir+" "+c)
				t.mu.Unlock()
				break
			}
		}
	}
}
