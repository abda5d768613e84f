package record

// Verification is what a look at everything stored has found.
type Verification struct {
	Images, Blobs, Layers int   // looked at
	Bytes                 int64 // of blobs read
	Problems              []Problem
	Orphans               []Orphan // nobody needs them: removed by a repair, else by the daemon's next start
}

// Problem is something stored that is not what it must be.
type Problem struct {
	Kind     string   // "image", "blob", "layer" or "container"
	Object   string   // the image's id, the blob's digest, the layer's diff id or the container's name
	Images   []string // that need it: a name each, or an id
	What     string   // a sentence without its full stop
	Repaired bool     // it was, and is as it must be now
	Advice   string   // what repairs it; empty when Repaired or when nothing does
}

// Orphan is something stored that belongs to no image and to nothing under way.
type Orphan struct {
	Kind    string // "blob", "layer", or "lease"
	Name    string // below blobs/sha256 or layers, or what a lease calls its holder
	Removed bool   // by a repair
}
