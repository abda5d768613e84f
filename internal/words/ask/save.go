package ask

// SaveFormat is the form of a saved archive. Each is a tar; the two that end in
// -dir are what a client unpacks into a directory.
type SaveFormat string

// The formats.
const (
	// DockerArchive is Docker's since release 25: manifest.json and an OCI layout
	// around the same blobs, so that either kind of reader understands it.
	DockerArchive SaveFormat = "docker-archive"
	OCIArchive    SaveFormat = "oci-archive"
	OCIDir        SaveFormat = "oci-dir"
	// DockerDir is one image in skopeo's directory: manifest.json is Docker's
	// schema 2, and blobs have their digests for names.
	DockerDir SaveFormat = "docker-dir"
)

// SaveImages is a request to write images as one archive.
type SaveImages struct {
	Names  []string   // as typed; a repository without a tag is every tag of it
	Format SaveFormat // empty: DockerArchive
	// Platforms, "os/arch[/variant]", are those that every image must have here,
	// and that go into the archive; empty: the one that each name stands for.
	Platforms []string
}

// LoadImages is a request to take images from an archive.
type LoadImages struct {
	// Platforms, "os/arch[/variant]", are those that every image of the archive
	// must have, and that are kept; empty: the host's of those that have several.
	Platforms []string
}
