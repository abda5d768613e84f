package image

import (
	"context"
	"maps"
	"slices"

	"fief/internal/words/failpoint"
)

// hold is what one operation needs: kept from being collected until release,
// which frees whatever of it has not become part of an image.
type hold struct {
	s             *Store
	blobs, layers map[string]bool
}

func (s *Store) hold() *hold { return &hold{s, map[string]bool{}, map[string]bool{}} }

func (h *hold) blob(digest string) {
	if !h.blobs[digest] {
		h.blobs[digest] = true
		h.s.pins.add("blob " + digest)
	}
}

func (h *hold) layer(diffID string) {
	if !h.layers[diffID] {
		h.layers[diffID] = true
		h.s.pins.add("layer " + diffID)
	}
}

// release may be called once. What it cannot remove, the next Open will.
func (h *hold) release() {
	for d := range h.blobs {
		h.s.pins.drop("blob " + d)
	}
	for d := range h.layers {
		h.s.pins.drop("layer " + d)
	}
	h.s.collect(h.blobs, h.layers)
}

// collect removes those of the blobs and layers that no image has and no
// operation needs, and returns the layers it removed, sorted. It waits for
// nobody who still needs one of them: who does will collect it in turn.
func (s *Store) collect(blobs, layers map[string]bool) (freed []string) {
	for _, diffID := range slices.Sorted(maps.Keys(layers)) {
		if s.collectLayer(diffID) {
			freed = append(freed, diffID)
		}
	}
	for digest := range blobs {
		s.collectBlob(digest)
	}
	return freed
}

// collectLayer takes the layer's lock first: who pins a layer and then gets
// the lock sees it whole, or gone.
func (s *Store) collectLayer(diffID string) bool {
	if s.pins.has("layer " + diffID) {
		return false
	}
	unlock, _ := s.busy.lock(context.Background(), layerLock(diffID))
	defer unlock()
	c := s.known.Load()
	if _, there := c.layers[diffID]; !there || c.usedLayers()[diffID] || s.pins.has("layer "+diffID) {
		return false
	}
	return s.dropLayer(diffID) == nil
}

func (s *Store) collectBlob(digest string) {
	if s.pins.has("blob " + digest) {
		return
	}
	unlock, _ := s.busy.lock(context.Background(), "blob "+digest)
	defer unlock()
	if s.known.Load().usedBlobs()[digest] || s.pins.has("blob "+digest) {
		return
	}
	s.blobs.remove(digest) // what stays is swept by the next Open
	s.unmark("blob", digest)
}

// dropLayer removes the layer, then its record: the other way round a crash
// between the two would leave a layer nobody knows of.
func (s *Store) dropLayer(diffID string) error {
	if err := s.layers.Remove(diffID); err != nil {
		return err
	}
	failpoint.Hit("layer-removed")
	return s.change(func(c *catalog) (map[string]any, error) {
		delete(c.layers, diffID)
		puts := map[string]any{layerKey + diffID: nil}
		if c.damaged("layer", diffID) {
			delete(c.damage, mark("layer", diffID))
			puts[damageKey+mark("layer", diffID)] = nil
		}
		return puts, nil
	})
}
