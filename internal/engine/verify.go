package engine

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Verify reads everything stored of images and says what is not as it must be,
// which containers have lost their files, and which ids are leased to nobody. It
// may take as long as reading the disk does and holds nothing up. With repair,
// what can be put right is, and what nobody needs is removed; else nothing is
// changed but that damage is noted, which keeps images from being run.
func (e *Engine) Verify(ctx context.Context, repair bool, progress func(record.Progress)) (record.Verification, error) {
	v, err := e.rooms.Images.Verify(ctx, repair, progress)
	if err != nil {
		return v, err
	}
	v.Problems = append(v.Problems, e.lostFiles()...)
	v.Problems = append(v.Problems, e.rooms.Volumes.Verify()...)
	leases, err := e.danglingLeases()
	v.Orphans = append(v.Orphans, leases...)
	if repair {
		e.sweepReplaced()
	}
	return v, err
}

// lostFiles tells of containers whose writable layer is gone.
func (e *Engine) lostFiles() (out []record.Problem) {
	for _, c := range e.table.all() {
		rec := c.record()
		if rec.State.Status == record.Removing || e.rooms.Layers.HasUpper(rec.Rootfs.Upper) {
			continue
		}
		if e.table.known(rec.ID) == nil {
			continue // removed meanwhile
		}
		out = append(out, record.Problem{Kind: "container", Object: rec.Name, What: "its writable layer is missing", Advice: "fief rm -f " + rec.Name})
	}
	return out
}

// danglingLeases lists ids that are leased to containers that do not exist. They
// are not stored: the next daemon does not know them.
func (e *Engine) danglingLeases() (out []record.Orphan, err error) {
	held, err := e.rooms.IDs.Holders()
	if err != nil {
		return nil, err
	}
	for _, h := range held {
		if h.Kind != record.IDLease || strings.HasPrefix(h.Holder, "berth-") {
			continue
		}
		owner := strings.TrimPrefix(h.Holder, "update-")
		if e.table.known(owner) != nil || e.table.reserved(owner) {
			continue
		}
		out = append(out, record.Orphan{Kind: "lease", Name: h.Holder})
	}
	return out, nil
}

// sweepReplaced deletes damaged layers that were made anew and that no container
// can still have mounted: one that starts from now on finds the new one.
func (e *Engine) sweepReplaced() {
	err := e.rooms.Layers.SweepReplaced(func(layer string) bool {
		return slices.ContainsFunc(e.table.all(), func(c *container) bool {
			rec := c.record()
			has := slices.ContainsFunc(rec.Rootfs.Layers, func(diffID string) bool { return strings.HasPrefix(diffID, "sha256:"+layer) })
			return has && (rec.State.Status == record.Running || len(c.claim) > 0)
		})
	})
	if err != nil {
		slog.Warn("cannot delete damaged layers that were made anew", "error", err)
	}
}

// whole refuses an image of which a layer is known to be damaged.
func whole(img record.Image, name string) error {
	for _, p := range img.Damage {
		if p.Kind == "layer" {
			return fault.New(fault.Corrupt, "use image", name, "its layer "+p.Object+" is damaged: "+p.What,
				"fief system verify --repair makes it anew, or says what does")
		}
	}
	return nil
}

// damageWarnings say what is damaged of an image that can be run all the same:
// its layers were unpacked before its blobs were damaged.
func damageWarnings(img record.Image) (out []string) {
	for _, p := range img.Damage {
		if p.Kind == "blob" {
			out = append(out, "blob "+p.Object+" of the image is damaged ("+p.What+"): it can be run, not saved or pushed; pull or load it again")
		}
	}
	return out
}
