package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

const saveLong = `Formats: docker-archive is what docker load, podman load and skopeo read (manifest.json and an OCI layout in one tar); oci-archive is a
pure OCI layout in a tar; oci-dir is that layout in a directory; docker-dir is one image in a directory, as skopeo's dir: reads it.

The same images make the same bytes.

  fief save -o images.tar busybox alpine:3
  fief save busybox | zstd | ssh other fief load
  fief save --format oci-dir -o layout busybox`

// platformFlags is the flag of what may take several platforms.
func platformFlags(fs *pflag.FlagSet, verb string) *[]string {
	return fs.StringSlice("platform", nil, verb+` only the given platforms, formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
}

func setupSave(fs *pflag.FlagSet) action {
	output := fs.StringP("output", "o", "", "Write to a file, or for a format that ends in -dir to a directory, instead of STDOUT")
	format := fs.String("format", string(ask.DockerArchive), "Format: docker-archive, oci-archive, oci-dir or docker-dir")
	platforms := platformFlags(fs, "Save")
	return func(c *Client, args []string) error {
		s := ask.SaveImages{Names: args, Format: ask.SaveFormat(*format), Platforms: *platforms}
		switch {
		case strings.HasSuffix(*format, "-dir"):
			return c.saveInto(s, *output)
		case *output != "":
			if err := checkOutput(*output); err != nil {
				return err
			}
			return intoFile(*output, func(f *os.File) error { return c.saveTo(s, f) }, badOutput)
		}
		if term.IsTerminal(int(c.Files[1].Fd())) {
			return fault.Say(fault.Invalid, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		return c.saveTo(s, c.Files[1])
	}
}

// saveTo has the daemon write to the file itself.
func (c *Client) saveTo(s ask.SaveImages, f *os.File) error {
	return c.watch(wire.Save, s, nil, nil, int(f.Fd()))
}

// intoFile lets write make a file whole or not at all. What is there and no
// regular file, such as a pipe, is written to as it is. bad puts what is wrong
// with the file itself into words.
func intoFile(name string, write func(*os.File) error, bad func(error) error) error {
	st, err := os.Stat(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return bad(err)
	}
	if err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return bad(err)
		}
		defer f.Close()
		return write(f)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return bad(err)
	}
	defer os.Remove(f.Name()) // gone when all went well
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return bad(err)
	}
	return nil
}

// checkOutput refuses what cannot become the file, in docker's words.
func checkOutput(name string) error {
	dir := filepath.Dir(filepath.Clean(name))
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return badOutput(fmt.Errorf("invalid output path: directory %q does not exist", dir))
	}
	st, err := os.Stat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return badOutput(err)
	case st.IsDir():
		return badOutput(fmt.Errorf("invalid output path: %q is a directory", name))
	case st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0:
		return badOutput(fmt.Errorf("invalid output path: %q must be a directory or a regular file: got a device", name))
	}
	return nil
}

func badOutput(err error) error {
	return fault.Say(fault.Invalid, "failed to save image: "+err.Error())
}

// saveInto unpacks the archive into a new or empty directory.
func (c *Client) saveInto(s ask.SaveImages, dir string) error {
	if dir == "" {
		return fault.New(fault.Invalid, "save images as", string(s.Format), "no directory was named", "name one with -o")
	}
	made := os.Mkdir(dir, 0o755)
	if made != nil && !errors.Is(made, os.ErrExist) {
		return badOutput(made)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return badOutput(err)
	}
	defer root.Close()
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		return badOutput(errors.Join(fmt.Errorf("invalid output path: directory %q is not empty", dir), err))
	}
	err = c.unpack(s, root)
	if err != nil && made == nil {
		_ = os.RemoveAll(dir) // this call made it
	}
	return err
}

// unpack takes the archive from the daemon through a pipe.
func (c *Client) unpack(s ask.SaveImages, root *os.Root) error {
	r, w, err := os.Pipe()
	if err != nil {
		return badOutput(err)
	}
	unpacked := make(chan error, 1)
	go func() {
		err := untar(r, root)
		r.Close() // the daemon hears of it
		unpacked <- err
	}()
	err = c.saveTo(s, w)
	w.Close()
	if untarred := <-unpacked; err == nil || fault.Is(err, fault.Unavailable) && untarred != nil {
		err = untarred
	}
	return err
}

func untar(r io.Reader, root *os.Root) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return badOutput(err)
		}
		if err := extract(root, h, t); err != nil {
			return badOutput(err)
		}
	}
}

func extract(root *os.Root, h *tar.Header, r io.Reader) error {
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	if err := root.MkdirAll(path.Dir(h.Name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
