package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"fief/internal/image/remote"
	"fief/internal/words/ask"
	"fief/internal/words/fault"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// packer writes an archive: a few tables, then blobs as they are stored.
type packer struct {
	*Store
	ctx   context.Context
	sizes map[string]int64 // of every blob that goes in, by digest
}

// table is a small file of an archive.
type table struct {
	name string
	raw  []byte
}

// measure finds every blob of the images.
func (p *packer) measure(list []*saved) error {
	for _, f := range list {
		for _, e := range f.all() {
			for _, b := range e.Blobs {
				st, err := p.blobs.root.Lstat(blobPath(b))
				if err != nil {
					return fault.New(fault.Corrupt, "save blob", b, "it is missing", "pull the image again")
				}
				p.sizes[b] = st.Size()
			}
		}
	}
	return nil
}

// tables are the small files of a format, in the order of the archive: first,
// so that a reader knows what is coming.
func (p *packer) tables(list []*saved, format ask.SaveFormat) ([]table, error) {
	switch format {
	case ask.DockerArchive:
		return append(p.layoutTables(list, false), dockerTables(list)...), nil
	case ask.OCIArchive, ask.OCIDir:
		return p.layoutTables(list, true), nil
	case ask.DockerDir:
		return p.dirTables(list)
	}
	return nil, fault.New(fault.Invalid, "save images as", short(string(format)), "there is no such format",
		"the formats are docker-archive, oci-archive, oci-dir and docker-dir")
}

// layoutTables make the archive an OCI image layout. Docker's own has every
// manifest as it came, and OCI tools choose by its tag alone; in a pure one the
// manifests are OCI's, and tools choose by the whole name, as podman writes it.
func (p *packer) layoutTables(list []*saved, pure bool) []table {
	var manifests []ocispec.Descriptor
	var indexes []table
	for _, f := range list {
		d := p.manifestOf(f.entry, pure)
		if len(f.others) > 0 {
			var raw []byte
			d, raw = p.indexOf(f, pure)
			indexes = append(indexes, table{blobPath(d.Digest.String()), raw})
		}
		if len(f.names) == 0 {
			manifests = append(manifests, d)
		}
		for _, name := range f.names {
			d.Annotations = map[string]string{containerdName: name, ocispec.AnnotationRefName: tagOf(name)}
			if pure {
				d.Annotations[ocispec.AnnotationRefName] = name
			}
			manifests = append(manifests, d)
		}
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests}
	return append([]table{
		{ocispec.ImageLayoutFile, encoded(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})},
		{ocispec.ImageIndexFile, encoded(index)},
	}, indexes...)
}

// manifestOf is what stands for an image in the layout, and goes into the archive.
func (p *packer) manifestOf(e entry, pure bool) ocispec.Descriptor {
	d := e.Manifest
	p.leave(e)
	if pure && e.Layout.Digest != "" {
		d = e.Layout
	}
	p.sizes[d.Digest.String()] = d.Size
	d.Platform = &ocispec.Platform{OS: e.Image.OS, Architecture: e.Image.Arch, Variant: e.Image.Variant}
	return d
}

// indexOf writes an index of the platforms that go into the archive: the one
// they came from may list more.
func (p *packer) indexOf(f *saved, pure bool) (ocispec.Descriptor, []byte) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, e := range f.all() {
		index.Manifests = append(index.Manifests, p.manifestOf(e, pure))
	}
	raw := encoded(index)
	return ocispec.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw
}

// dockerTables are what `docker load` of any age reads. Its layers may be
// compressed since Docker 1.10, as it finds out by itself. It knows one platform
// of an image.
func dockerTables(list []*saved) []table {
	var items []dockerItem
	repositories := map[string]map[string]string{}
	for _, f := range list {
		item := dockerItem{Config: blobPath(f.Image.ID), Layers: []string{}}
		for _, l := range f.Image.Layers {
			item.Layers = append(item.Layers, blobPath(l.Digest))
		}
		for _, name := range f.names {
			item.RepoTags = append(item.RepoTags, Familiar(name))
			if len(f.Image.Layers) == 0 {
				continue
			}
			repository := strings.TrimSuffix(Familiar(name), ":"+tagOf(name))
			if repositories[repository] == nil {
				repositories[repository] = map[string]string{}
			}
			repositories[repository][tagOf(name)] = strings.TrimPrefix(f.Image.Layers[len(f.Image.Layers)-1].Digest, "sha256:")
		}
		items = append(items, item)
	}
	files := []table{{"manifest.json", encoded(items)}}
	if len(repositories) > 0 {
		files = append(files, table{"repositories", encoded(repositories)})
	}
	return files
}

// dirTables make skopeo's directory of one image. Its manifest is translated
// where it is OCI's: the same config and layers by their names in schema 2.
func (p *packer) dirTables(list []*saved) ([]table, error) {
	if len(list) != 1 || len(list[0].others) > 0 {
		return nil, fault.New(fault.Invalid, "save images as", "docker-dir", "it holds one image", "save them one by one")
	}
	f := list[0]
	raw := p.blobs.small(f.Image.Manifest, remote.MaxManifest)
	doc, err := parseDocument(raw, f.Manifest.MediaType)
	if err != nil {
		return nil, err
	}
	p.leave(f.entry)
	if f.Manifest.MediaType != remote.DockerManifest {
		var kinds []string
		for _, l := range doc.Layers {
			kind, err := p.dockerLayer(l)
			if err != nil {
				return nil, err
			}
			kinds = append(kinds, kind)
		}
		raw = dockerManifest(doc, kinds)
	}
	return []table{{"version", []byte("Directory Transport Version: 1.1\n")}, {"manifest.json", raw}}, nil
}

func (p *packer) dockerLayer(l ocispec.Descriptor) (string, error) {
	is, err := p.describe(l.Digest.String(), l.Size)
	switch {
	case err != nil:
		return "", err
	case is.MediaType == ocispec.MediaTypeImageLayerZstd:
		return "", fault.New(fault.Unsupported, "save as docker-dir", l.Digest.String(), "Docker's schema 2 knows no zstd", "use --format oci-dir")
	case is.MediaType == ocispec.MediaTypeImageLayerGzip:
		return dockerLayerGzip, nil
	}
	return dockerLayerTar, nil
}

// leave keeps the manifests of an image out of the archive.
func (p *packer) leave(e entry) {
	delete(p.sizes, e.Image.Manifest)
	delete(p.sizes, e.Layout.Digest.String())
}

func tagOf(canonical string) string {
	named, err := reference.ParseNormalizedNamed(canonical)
	if tagged, ok := named.(reference.Tagged); err == nil && ok {
		return tagged.Tag()
	}
	return ""
}

// encoded is JSON of values that always have some: maps come out sorted.
func encoded(v any) []byte {
	raw, _ := json.Marshal(v)
	return append(raw, '\n')
}

// write makes the tar. Nothing in it depends on the time or the host.
func (p *packer) write(w io.Writer, files []table, format ask.SaveFormat) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		if err := p.member(t, f.name, int64(len(f.raw)), bytes.NewReader(f.raw)); err != nil {
			return err
		}
	}
	place := blobPath
	if format == ask.DockerDir {
		place = func(d string) string { return digest.Digest(d).Encoded() }
	} else {
		for _, dir := range []string{"blobs/", blobDir + "/"} {
			if err := t.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				return saveFault(err)
			}
		}
	}
	for _, d := range slices.Sorted(maps.Keys(p.sizes)) {
		if err := p.blob(t, place(d), d); err != nil {
			return err
		}
	}
	return saveFault(t.Close())
}

// blob copies one blob and checks what it copied.
func (p *packer) blob(t *tar.Writer, name, d string) error {
	f, err := p.blobs.open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if err := p.member(t, name, p.sizes[d], io.TeeReader(&counter{r: f}, sum)); err != nil {
		return err
	}
	if got := sumOf(sum); got != d {
		return fault.New(fault.Corrupt, "save blob", d, "its content has digest "+got, "pull the image again")
	}
	return nil
}

func (p *packer) member(t *tar.Writer, name string, size int64, r io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
		return saveFault(err)
	}
	n, err := io.Copy(t, &canceled{p.ctx, io.LimitReader(r, size)})
	if err == nil && n != size {
		return fault.New(fault.Corrupt, "save blob", name, "it is shorter than it was", "")
	}
	return saveFault(err)
}

// saveFault is of a receiver that takes no more, unless the error says better.
func saveFault(err error) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) {
		return err
	}
	return fault.Wrap(fault.Unavailable, "write archive", "", err, "")
}
