package record

// Verification is what a look at everything stored has found.
type Verification struct {
	Images, Blobs, Layers int   // looked at
	Bytes                 int64 // of blobs read
	Problems              []Problem
	Orphans               []Orphan // nobody needs them; the daemon's next start removes them
}

// Problem is something stored that is not what it must be.
type Problem struct {
	Kind   string   // "image", "blob" or "layer"
	Object string   // the image's id, the blob's digest or the layer's diff id
	Images []string // that need it: a name each, or an id
	What   string   // a sentence without its full stop
}

// Orphan is something stored that belongs to no image and to nothing under way.
type Orphan struct {
	Kind string // "blob" or "layer"
	Name string // below blobs/sha256 or layers
}
