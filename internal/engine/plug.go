package engine

import (
	"os"
	"path/filepath"

	"fief/internal/network"
	"fief/internal/words/record"
)

// plugged notes, in the record and the files of a container whose program is about
// to run, what the plugins of its networks have given it.
func (e *Engine) plugged(c *container, has record.Net) error {
	rec := c.change(func(r *record.Container) { r.Net = has })
	if err := e.writeRun(rec); err != nil {
		return err
	}
	links, err := e.linkLines(rec)
	if err != nil {
		return err
	}
	files, err := network.FilesFor(rec, links)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"hosts": files.Hosts, "resolv.conf": files.Resolv} {
		if err := os.WriteFile(filepath.Join(e.runDir(rec.ID), name), content, 0o644); err != nil { // in place: it is mounted
			return err
		}
	}
	return nil
}
