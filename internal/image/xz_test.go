package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os/exec"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"

	"github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A dictionary of that many bytes, as a block header has it (the .xz file
// format, 5.3.1).
const (
	dictionary4K   = 0
	dictionary64M  = 28
	dictionary96M  = 29
	dictionaryMost = 40 // 4 GiB - 1
)

// xzOf writes one stream of one block of chunks that are not compressed.
func xzOf(content []byte, dictionary byte) []byte {
	sum := func(p []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(p)) }
	padded := func(p []byte) []byte { return append(p, make([]byte, -len(p)&3)...) }
	flags := []byte{0, 1} // checked by CRC32
	out := append(append(append([]byte{}, xzMagic...), flags...), sum(flags)...)
	header := []byte{2, 0, 0x21, 1, dictionary, 0, 0, 0}
	block := append(header, sum(header)...)
	kind := byte(1) // resets the dictionary
	for rest := content; len(rest) > 0; kind = 2 {
		n := min(len(rest), 1<<16)
		block = append(binary.BigEndian.AppendUint16(append(block, kind), uint16(n-1)), rest[:n]...)
		rest = rest[n:]
	}
	block = append(block, 0)
	index := binary.AppendUvarint([]byte{0, 1}, uint64(len(block)+4))
	index = padded(binary.AppendUvarint(index, uint64(len(content))))
	index = append(index, sum(index)...)
	out = append(append(append(out, padded(block)...), sum(content)...), index...)
	footer := append(binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1)), flags...)
	return append(append(append(out, sum(footer)...), footer...), 'Y', 'Z')
}

// squeezed compresses with a tool of the host.
func squeezed(t testing.TB, tool string, raw []byte) []byte {
	t.Helper()
	binary, err := exec.LookPath(tool)
	if err != nil {
		t.Skip("tool: " + tool)
	}
	cmd := exec.Command(binary, "-c")
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unpackedBy(raw []byte) ([]byte, error) {
	r, err := plainArchive(context.Background(), bytes.NewReader(raw), newWindows())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// What xz and bzip2 write is loaded and imported, and what is stored of it is a
// layer that every OCI tool knows.
func TestForeignCompressions(t *testing.T) {
	img := registrytest.Plain(registrytest.Layer("a", random(200_000)), registrytest.Layer("b", "2"))
	for name, squeeze := range map[string]func(t *testing.T, raw []byte) []byte{
		"by hand": func(_ *testing.T, raw []byte) []byte { return xzOf(raw, dictionary64M) },
		"streams": func(_ *testing.T, raw []byte) []byte {
			return append(append(xzOf(raw[:1000], dictionary4K), 0, 0, 0, 0), xzOf(raw[1000:], dictionary4K)...)
		},
		"xz":    func(t *testing.T, raw []byte) []byte { return squeezed(t, "xz", raw) },
		"bzip2": func(t *testing.T, raw []byte) []byte { return squeezed(t, "bzip2", raw) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			got := w.load(t, squeeze(t, img.DockerArchive("x:1")))[0]
			layers := img
			layers.Blobs = [][]byte{squeeze(t, img.Tars[0]), squeeze(t, img.Tars[1])}
			inside := newWorld(t)
			if again := inside.load(t, layers.DockerArchive("x:1"))[0]; again.ID != got.ID {
				t.Errorf("%+v", again)
			}
			made, err := inside.Import(context.Background(), ask.ImportImage{Name: "made:1"}, bytes.NewReader(squeeze(t, img.Tars[0])))
			if err != nil || made.Layers[0].DiffID != got.Layers[0].DiffID {
				t.Fatalf("%+v %v", made, err)
			}
			for _, l := range append(made.Layers, got.Layers...) {
				if desc, err := inside.describe(l.Digest, l.Bytes); err == nil && desc.MediaType != ocispec.MediaTypeImageLayerGzip {
					t.Errorf("stored as %s", desc.MediaType)
				}
			}
			if got := newWorld(t).load(t, inside.save(t, ask.SaveImages{Names: []string{"x:1", "made:1"}})); len(got) != 2 {
				t.Errorf("%+v", got)
			}
			// In an OCI layout, as in a registry, there is no such layer.
			layers.MediaTypes = []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayer}
			other := newWorld(t)
			other.unchanged(t, func() {
				_, err := other.loadFor(layers.OCIArchive("x:1"))
				wantClass(t, err, fault.Unsupported, "a layer of an OCI image cannot be compressed with xz or bzip2")
			})
		})
	}
}

// What asks for the host's memory, lies, or is cut off or goes on.
func TestForeignHostile(t *testing.T) {
	raw := registrytest.Plain(registrytest.Layer("a", random(5000))).DockerArchive("x:1")
	good := xzOf(raw, dictionary64M)
	late := append(xzOf(raw[:2000], dictionary4K), xzOf(raw[2000:], dictionary96M)...) // not in the first header
	flip := bytes.Clone(good)
	flip[len(flip)/2] ^= 1
	size := bytes.Clone(good)
	size[len(size)-20] ^= 1 // in the index
	none := bytes.Clone(good)
	none[7] = 7 // a check that nobody has
	copy(none[8:], binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(none[6:8])))
	for name, c := range map[string]struct {
		raw   []byte
		class fault.Class
		text  string
	}{
		"dictionary of 96 MiB":     {xzOf(raw, dictionary96M), fault.Exhausted, "larger than 64 MiB"},
		"dictionary of 4 GiB":      {xzOf(raw, dictionaryMost), fault.Exhausted, "larger than 64 MiB"},
		"dictionary beyond":        {xzOf(raw, 41), fault.Unsupported, ""},
		"later dictionary":         {late, fault.Exhausted, "larger than 64 MiB"},
		"unknown check":            {none, fault.Unsupported, ""},
		"changed":                  {flip, fault.Corrupt, ""},
		"another index":            {size, fault.Corrupt, ""},
		"cut":                      {good[:len(good)-30], fault.Corrupt, ""},
		"cut in the header":        {good[:9], fault.Corrupt, ""},
		"the beginning alone":      {good[:6], fault.Corrupt, ""},
		"trailing":                 {append(bytes.Clone(good), "something else"...), fault.Corrupt, ""},
		"padding of no multiple":   {append(bytes.Clone(good), 0, 0, 0), fault.Corrupt, ""},
		"bzip2 cut":                {squeezed(t, "bzip2", raw)[:3000], fault.Corrupt, ""},
		"bzip2 trailing":           {append(squeezed(t, "bzip2", raw), "something else"...), fault.Corrupt, ""},
		"bzip2, the beginning":     {[]byte("BZh9"), fault.Corrupt, ""},
		"bzip2 of no block size":   {[]byte("BZh0aaaaaaaaaaaaaaa"), fault.Corrupt, ""},
		"xz in xz":                 {xzOf(good, dictionary4K), fault.Corrupt, ""},
		"nothing in it":            {xzOf(nil, dictionary4K), fault.Corrupt, "neither index.json nor manifest.json"},
		"a layer cut in the midst": {registrytest.Tar("manifest.json", `[{"Config":"c","Layers":["l"]}]`, "c", "{}", "l", string(good[:3000])), fault.Corrupt, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.unchanged(t, func() {
				_, err := w.loadFor(c.raw)
				wantClass(t, err, c.class, c.text)
				if strings.HasPrefix(name, "a layer") || strings.Contains(name, "nothing") || name == "xz in xz" {
					return
				}
				_, err = w.Import(context.Background(), ask.ImportImage{}, bytes.NewReader(c.raw))
				wantClass(t, err, c.class, "")
			})
		})
	}
}

// 64 MiB of zeros, compressed with xz -9 or bzip2 -9, and that again with gzip.
const (
	zerosXz = "H4sIAAAAAAACA/trXhURxcDA8uzaFjcmBkVGGQYGBoHzEWf+/xdkzIllYMj/+///4u3/3e08RIssEwN3TNJ4triN/ee7J3JNl/WP" +
		"Wtkwem+sO9nV5au/mPdm/bLHPcqCwQ8iJY6Wdj0q/7FtSj1P1oF7JZ4pj17GBG9iufHdhWd1PG+u28unh8s6tk8LX7PN92GmbP5v" +
		"7w6BHKfTHfYxDP0X/NaraUwplLftV3lYMG+5cvwbjdOtF6fO6KrTmvhJvfS75AG2Gb4z/t5Yf3UC/xHV4B9fJ5oZsi7d8C7/YIGv" +
		"O8/FiYKr1ibI7jq3UV0iJrLtZVpQxL6XZWsinzyNZuX4efzW2j+/g7RLzspFKzj9vBts+0MzhdO64bRWzv2t1h+O7NWLX8Vv553m" +
		"NEGY77/A5B+FFZE/uM/+n6rhxr/yT82937MM9MIO9Ld+bm48kEplq/d4qD+LmP9fgFGb4U1x8PK/+9bVGErN395rmDdywoA0qwP5" +
		"7TeNBthogI0G2GiAjQbYaICNBthogI0G2GiAjQbYaICNBthogI0G2GiAjQbYaICNBthogI0G2GiAjQbYaICNBthogI0G2GiAjQbY" +
		"aICNBthogI0G2GiAjQbYQAVYg+w9BjaG1w/PR6ozMDBMldEVMrt5OIaBsdm3oaFBIdt68veNR9J/MwHlGFgiowDJfmDsqCYAAA=="
	zerosBzip2 = "H4sIAAAAAAACA3OKyrA0dIxUC47k43x0nzG+z4HhAAMDhwKDQYOvm9MC1ZVcDdMh8ntYth5mWFR6ACqvsITDzKirw1dLS9Fi9yTN" +
		"Qy2tDLubXwAAWrBTSU8AAAA="
)

// A few hundred kilobytes do not become gigabytes.
func TestForeignBombs(t *testing.T) {
	for name, packed := range map[string]string{"xz": zerosXz, "bzip2": zerosBzip2} {
		t.Run(name, func(t *testing.T) {
			z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(packed)))
			if err != nil {
				t.Fatal(err)
			}
			once, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			r, err := plainArchive(t.Context(), bytes.NewReader(bytes.Repeat(once, 64)), newWindows())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			n, err := io.Copy(io.Discard, r)
			wantClass(t, err, fault.Exhausted, "unpacks to more than 1000 times its size")
			if n > bombFree+1<<20 {
				t.Errorf("noticed after %d bytes", n)
			}
		})
	}
}

// FuzzForeign: a stream of xz that was changed or cut anywhere ends with an
// error or has its content, and its dictionary is never larger than allowed.
func FuzzForeign(f *testing.F) {
	text := []byte(strings.Repeat("some text, ", 50))
	f.Add(text, byte(dictionary4K), uint16(30), byte(1), uint16(0), []byte(nil))
	f.Add(text, byte(dictionaryMost), uint16(0), byte(0), uint16(0), xzOf(text, dictionary4K))
	f.Add([]byte{}, byte(dictionary4K), uint16(0), byte(0), uint16(5), []byte("after"))
	f.Add(text, byte(dictionary96M), uint16(16), byte(1), uint16(0), []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, content []byte, dictionary byte, at uint16, with byte, cut uint16, more []byte) {
		raw := xzOf(content, dictionary)
		raw[int(at)%len(raw)] ^= with
		raw = append(raw[:len(raw)-int(cut)%len(raw)], more...)
		got, err := unpackedBy(raw)
		if err != nil {
			if class := fault.ClassOf(err); class == fault.Internal {
				t.Fatalf("class %v: %v", class, err)
			}
			return
		}
		if len(raw) < len(xzMagic) || !bytes.HasPrefix(raw, xzMagic) {
			return // it is a plain tar now
		}
		if !bytes.HasPrefix(got, content) {
			t.Fatalf("%q became %q", content, got)
		}
		if dictionary > dictionary64M && cut == 0 {
			t.Fatalf("a dictionary of class %d was allowed", dictionary)
		}
	})
}
