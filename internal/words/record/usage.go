package record

// Usage is what images take on disk, where a layer that several have is once.
type Usage struct {
	Layers int64            // bytes of all layers
	Shared map[string]int64 // by image id: bytes of its layers that other images have as well
}

// Measure adds up the layers of images.
func Measure(images []Image) Usage {
	size, users := map[string]int64{}, map[string]int{}
	for _, img := range images {
		for _, l := range img.distinct() {
			size[l.DiffID] = l.Size
			users[l.DiffID]++
		}
	}
	u := Usage{Shared: map[string]int64{}}
	for _, n := range size {
		u.Layers += n
	}
	for _, img := range images {
		for _, l := range img.distinct() {
			if users[l.DiffID] > 1 {
				u.Shared[img.ID] += l.Size
			}
		}
	}
	return u
}

// distinct is an image's layers, each once: an image may have one several times.
func (i Image) distinct() []Layer {
	var out []Layer
	seen := map[string]bool{}
	for _, l := range i.Layers {
		if !seen[l.DiffID] {
			out = append(out, l)
		}
		seen[l.DiffID] = true
	}
	return out
}

// Freed is how many bytes of layers went with what was removed of the image.
func (i Image) Freed(gone []Removed) (n int64) {
	deleted := map[string]bool{}
	for _, r := range gone {
		deleted[r.Deleted] = true
	}
	for _, l := range i.distinct() {
		if deleted[l.DiffID] {
			n += l.Size
		}
	}
	return n
}
