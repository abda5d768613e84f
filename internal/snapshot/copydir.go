package snapshot

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// CopyDir makes again in dst, an empty directory, what a root file system of
// these layers has at name, as a process in it would find it: with inside ids,
// and with the directory's own attributes. It reports false when no directory is
// there. Nothing is synced. On failure dst holds a part.
func (s *Store) CopyDir(ctx context.Context, layers []string, host bool, name string, dst *os.File) (bool, error) {
	mapped, err := s.Maps(idmap.Pair{}, "")
	if err != nil {
		return false, err
	}
	defer mapped.Close()
	root, err := s.Rootfs(Request{Mapped: mapped, Layers: layers, Host: host})
	if err != nil {
		return false, err
	}
	defer root.Close()
	src, err := at.InRoot(root.FD, name, unix.O_PATH|unix.O_DIRECTORY)
	if fault.Is(err, fault.NotFound) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer src.Close()
	return true, shift.CopyTree(ctx, shift.Job{Src: src, Dst: dst, Way: shift.Copy})
}
