package badinput

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"fief/internal/image/registrytest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// bomb is a tar of one file of gigabytes of zeros, as w compresses it.
func bomb(w io.WriteCloser, gigabytes int) {
	head := tarOf(reg("zeros", ""))[:512]
	block := make([]byte, 1<<20)
	w.Write(changed(head, func(b []byte) { copy(b[124:], "77777777777\x00") })) // 8 GiB
	for range gigabytes << 10 {
		w.Write(block)
	}
	w.Close()
}

func gzipBomb(gigabytes int) []byte {
	var b bytes.Buffer
	bomb(gzip.NewWriter(&b), gigabytes)
	return b.Bytes()
}

func zstdBomb(gigabytes int) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		panic(err)
	}
	bomb(w, gigabytes)
	return b.Bytes()
}

// framing is what gzip and zstd say around the content.
func framing() []hostile {
	small := registrytest.Layer("f", strings.Repeat("content ", 500))
	img := registrytest.Plain(small).DockerArchive("evil:1")
	gz, zs := registrytest.Gzip(img), registrytest.Zstd(img)
	with := func(b []byte, at int, v byte) []byte {
		out := bytes.Clone(b)
		out[(len(out)+at)%len(out)] ^= v
		return out
	}
	return []hostile{
		{name: "gzip cut off", archive: gz[:len(gz)/2]},
		{name: "gzip without its trailer", archive: gz[:len(gz)-8]},
		{name: "gzip with a wrong checksum", archive: with(gz, -6, 0xff)},
		{name: "gzip with a wrong length", archive: with(gz, -1, 0xff)},
		{name: "gzip of another method", archive: append([]byte{0x1f, 0x8b, 0x07}, gz[3:]...)},
		{name: "gzip with a name without end", archive: append([]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3}, bytes.Repeat([]byte("n"), 1<<20)...)},
		{name: "gzip with an extra field that is not there", archive: []byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 3, 0xff, 0xff, 1}},
		{name: "gzip followed by anything", archive: append(bytes.Clone(gz), "anything at all"...)},
		{name: "gzip of nothing", archive: registrytest.Gzip(nil)},
		{name: "gzip magic alone", archive: []byte{0x1f, 0x8b, 0x08}},
		{name: "gzip in gzip", archive: registrytest.Gzip(gz)},
		{name: "zstd cut off", archive: zs[:len(zs)/2]},
		{name: "zstd with a wrong checksum", archive: with(zs, -2, 0xff)},
		{name: "zstd with a window of a terabyte", archive: []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0}},
		{name: "zstd that says it is huge", archive: append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0}, bytes.Repeat([]byte{0xff}, 8)...)},
		{name: "zstd followed by anything", archive: append(bytes.Clone(zs), "anything at all"...)},
		{name: "zstd with a dictionary", archive: []byte{0x28, 0xb5, 0x2f, 0xfd, 0x23, 1, 2, 3, 4, 0, 1, 0, 0}},
		{name: "zstd in zstd", archive: registrytest.Zstd(zs)},
		{name: "xz", want: "data is corrupt", archive: append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, small...)},
		{name: "bzip2", want: "bzip2 data invalid", archive: append([]byte("BZh9"), small...)},
		{name: "layer of another compression than said", harmless: true, archive: registrytest.Image{Tars: [][]byte{small}, Blobs: [][]byte{registrytest.Zstd(small)}}.OCIArchive("evil:1")},
		{name: "layer with data after its end", harmless: true, layer: append(bytes.Clone(small), strings.Repeat("more", 500)...)},
		{name: "layer with a second archive after its end", harmless: true, inside: hasNot("evil"), layer: append(bytes.Clone(small), tarOf(reg("evil", "x"))...)},
	}
}

// oci is an OCI archive whose parts were changed before their digests were made.
func oci(name, want string, index, manifest, config func(map[string]any)) hostile {
	layer := registrytest.Layer("f", "x")
	cfgRaw, manRaw, _ := registrytest.Plain(layer).Files()
	var cfg, man map[string]any
	json.Unmarshal(cfgRaw, &cfg)
	json.Unmarshal(manRaw, &man)
	if config != nil {
		config(cfg)
	}
	cfgRaw, _ = json.Marshal(cfg)
	man["config"].(map[string]any)["digest"], man["config"].(map[string]any)["size"] = digest.FromBytes(cfgRaw), len(cfgRaw)
	if manifest != nil {
		manifest(man)
	}
	manRaw, _ = json.Marshal(man)
	idx := map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.FromBytes(manRaw), "size": len(manRaw),
		"annotations": map[string]any{"org.opencontainers.image.ref.name": "evil:1"}}}}
	if index != nil {
		index(idx)
	}
	idxRaw, _ := json.Marshal(idx)
	blob := func(b []byte) string { return "blobs/sha256/" + digest.FromBytes(b).Encoded() }
	return hostile{name: name, want: want, archive: registrytest.Tar("oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", idxRaw,
		blob(cfgRaw), cfgRaw, blob(manRaw), manRaw, blob(layer), layer)}
}

func set(key string, v any) func(map[string]any) { return func(m map[string]any) { m[key] = v } }

func within(path string, f func(map[string]any)) func(map[string]any) {
	return func(m map[string]any) {
		for part := range strings.SplitSeq(path, ".") {
			switch next := m[part].(type) {
			case map[string]any:
				m = next
			case []any:
				m = next[0].(map[string]any)
			}
		}
		f(m)
	}
}

// documents are manifests, indexes and configs.
func documents() []hostile {
	evil := "sha256:" + strings.Repeat("../", 21) + "x"
	other := "sha256:" + strings.Repeat("ab", 32)
	many := func(n int) []any {
		out := make([]any, n)
		for i := range out {
			out[i] = map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": other, "size": 1}
		}
		return out
	}
	deep := strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000)
	return []hostile{
		oci("manifest of schema 1", "schema 1", nil, set("schemaVersion", 1), nil),
		oci("manifest of schema 3", "schema 3", nil, set("schemaVersion", 3), nil),
		oci("manifest of another kind", "media type", nil, set("mediaType", "text/html"), nil),
		oci("manifest that says it is an index", "at once", nil, set("mediaType", "application/vnd.oci.image.index.v1+json"), nil),
		oci("manifest and index at once", "at once", nil, set("manifests", many(1)), nil),
		oci("manifest without config", "no config", nil, func(m map[string]any) { delete(m, "config") }, nil),
		oci("manifest whose config is a plugin", "media type", nil, within("config", set("mediaType", "application/vnd.docker.plugin.v1+json")), nil),
		oci("manifest with a config that is a path", "no sha256 digest", nil, within("config", set("digest", evil)), nil),
		oci("manifest with a layer that is a path", "no sha256 digest", nil, within("layers", set("digest", evil)), nil),
		oci("manifest with a digest in capitals", "no sha256 digest", nil, within("layers", set("digest", "SHA256:"+strings.Repeat("AB", 32))), nil),
		oci("manifest with a short digest", "no sha256 digest", nil, within("layers", set("digest", "sha256:ab")), nil),
		oci("manifest with another algorithm", "no sha256 digest", nil, within("layers", set("digest", "md5:d41d8cd98f00b204e9800998ecf8427e")), nil),
		oci("manifest with a layer below zero", "", nil, within("layers", set("size", -1)), nil),
		oci("manifest with a layer of an exbibyte", "", nil, within("layers", set("size", int64(1)<<60)), nil),
		oci("manifest with a layer of another size", "", nil, within("layers", set("size", 5)), nil),
		oci("manifest with a layer that is missing", "not in it", nil, within("layers", set("digest", other)), nil),
		oci("manifest with 600 layers", "more than 500", nil, set("layers", many(600)), nil),
		oci("manifest with more layers than its config", "", nil, set("layers", many(3)), nil),
		oci("manifest without layers", "", nil, set("layers", []any{}), nil),
		oci("config with another diff id", "digest", nil, nil, within("rootfs", set("diff_ids", []string{other}))),
		oci("config with a diff id that is a path", "", nil, nil, within("rootfs", set("diff_ids", []string{evil}))),
		oci("config without diff ids", "", nil, nil, within("rootfs", set("diff_ids", []string{}))),
		oci("config of another kind", "", nil, nil, within("rootfs", set("type", "tar+split"))),
		oci("config that is a list of numbers", "", nil, nil, set("config", []int{1, 2})),
		oci("config with another system", "", nil, nil, set("rootfs", 7)),
		oci("index without images", "lists no image", set("manifests", []any{}), nil, nil),
		oci("index that names a path", "no sha256 digest", within("manifests", set("digest", evil)), nil, nil),
		oci("index that names what is missing", "not in it", within("manifests", set("digest", other)), nil, nil),
		oci("index with another size", "", within("manifests", set("size", 3)), nil, nil),
		oci("index with a size beyond limits", "", within("manifests", set("size", int64(1)<<50)), nil, nil),
		oci("index with a name of nonsense", "", within("manifests.annotations", set("io.containerd.image.name", "../../etc:passwd")), nil, nil),
		oci("index of ten thousand and one", "", set("manifests", many(10001)), nil, nil),
		{name: "index nested without end", archive: registrytest.Tar("oci-layout", "{}", "index.json", deep)},
		{name: "index of no json", archive: registrytest.Tar("oci-layout", "{}", "index.json", "\x00\x01")},
		{name: "index of five megabytes", archive: registrytest.Tar("oci-layout", "{}", "index.json", `{"schemaVersion":2,"x":"`+strings.Repeat("x", 5<<20)+`"}`)},
		{name: "index in index in index", archive: russian()},
	}
}

// russian is an index in an index, deeper than anybody has a use for.
func russian() []byte {
	_, raw, _ := registrytest.Plain(registrytest.Layer("f", "x")).Files()
	files := []any{"oci-layout", "{}"}
	media := "application/vnd.oci.image.manifest.v1+json"
	for range 10 {
		d := digest.FromBytes(raw)
		files = append(files, "blobs/sha256/"+d.Encoded(), raw)
		raw, _ = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
			"manifests": []any{map[string]any{"mediaType": media, "digest": d, "size": len(raw)}}})
		media = "application/vnd.oci.image.index.v1+json"
	}
	return registrytest.Tar(append(files, "index.json", raw)...)
}

// archives are wrong as archives of images.
func archives() []hostile {
	cfg, _, _ := registrytest.Plain(registrytest.Layer("f", "x")).Files()
	layer := registrytest.Layer("f", "x")
	docker := func(manifest string, more ...any) []byte {
		return registrytest.Tar(append([]any{"manifest.json", manifest, "c.json", cfg, "l.tar", layer}, more...)...)
	}
	linked := func(entries ...entry) []byte {
		return tarOf(append([]entry{reg("manifest.json", `[{"Config":"c.json","Layers":["l.tar"]}]`), reg("c.json", string(cfg))}, entries...)...)
	}
	return []hostile{
		{name: "archive without anything", want: "neither index.json nor manifest.json", archive: tarOf(reg("f", "x"))},
		{name: "archive of no images", archive: docker(`[]`)},
		{name: "archive of null", archive: docker(`null`)},
		{name: "archive whose manifest is an object", archive: docker(`{}`)},
		{name: "archive whose manifest is too large", archive: docker(`["` + strings.Repeat("x", 17<<20) + `"]`)},
		{name: "archive that names a host file", want: "not in it", archive: docker(`[{"Config":"/etc/passwd","Layers":["l.tar"]}]`)},
		{name: "archive that names a path above", want: "not in it", archive: docker(`[{"Config":"c.json","Layers":["../../../../etc/passwd"]}]`)},
		{name: "archive with a layer too many", archive: docker(`[{"Config":"c.json","Layers":["l.tar","l.tar"]}]`)},
		{name: "archive with a layer too few", archive: docker(`[{"Config":"c.json","Layers":[]}]`)},
		{name: "archive with layers without number", archive: docker(`[{"Config":"c.json","Layers":["` + strings.Repeat(`l.tar","`, 600) + `l.tar"]}]`)},
		{name: "archive with a name of nonsense", archive: docker(`[{"Config":"c.json","RepoTags":["../..:x"],"Layers":["l.tar"]}]`)},
		{name: "archive with a name of control characters", archive: docker(`[{"Config":"c.json","RepoTags":["a\u0000b"],"Layers":["l.tar"]}]`)},
		{name: "archive with a layer that is a directory", archive: linked(folder("l.tar"))},
		{name: "archive with a layer that links out", want: "not in it", archive: linked(sym("l.tar", "/etc/passwd"))},
		{name: "archive with a layer that links above", want: "not in it", archive: linked(sym("l.tar", "../../../../etc/passwd"))},
		{name: "archive with a layer that links to itself", want: "not in it", archive: linked(sym("l.tar", "l.tar"))},
		{name: "archive with a layer that hard links out", want: "not in it", archive: linked(hard("l.tar", "/etc/passwd"))},
		{name: "archive with a layer that is a device", want: "not in it", archive: linked(special('3', "l.tar", 1, 5))},
		{name: "archive with a layer that is a fifo", want: "not in it", archive: linked(special('6', "l.tar", 0, 0))},
		{name: "archive with a layer that is no tar", archive: linked(reg("l.tar", strings.Repeat("no tar", 300)))},
		{name: "archive with a layer that is another", want: "digest", archive: linked(reg("l.tar", string(registrytest.Layer("f", "y"))))},
		{name: "archive with a layer twice, the last counts", want: "digest", archive: linked(reg("l.tar", string(layer)), reg("l.tar", string(registrytest.Layer("f", "z"))))},
		{name: "archive with a config that is too large", archive: registrytest.Tar("manifest.json", `[{"Config":"c.json","Layers":["l.tar"]}]`, "c.json", strings.Repeat(" ", 9<<20)+string(cfg), "l.tar", layer)},
		{name: "archive with a config twice as deep as json may be", archive: registrytest.Tar("manifest.json", `[{"Config":"c.json","Layers":["l.tar"]}]`, "c.json", strings.Repeat("[", 20001), "l.tar", layer)},
		{name: "archive with names above", harmless: true, archive: docker(`[{"Config":"c.json","RepoTags":["good:1"],"Layers":["l.tar"]}]`, "../../evil", "x", "/etc/evil", "x")},
		{name: "archive with a digest for a name", want: "not its digest", archive: docker(`[{"Config":"c.json","RepoTags":["a@sha256:` + strings.Repeat("ab", 32) + `"],"Layers":["l.tar"]}]`)},
		{name: "archive with a tag and a digest for a name", want: "not its digest", archive: docker(`[{"Config":"c.json","RepoTags":["a:1@sha256:` + strings.Repeat("ab", 32) + `"],"Layers":["l.tar"]}]`)},
		oci("layout with a digest for a name", "not its digest", within("manifests.annotations", set("io.containerd.image.name", "docker.io/library/a@"+"sha256:"+strings.Repeat("ab", 32))), nil, nil),
	}
}

// registry answers as it likes.
type registry struct {
	registrytest.Registry
	first func(w http.ResponseWriter, r *http.Request) bool
}

func newRegistry() *registry {
	r := &registry{}
	r.Push("app", "latest", registrytest.Gzipped(registrytest.Layer("f", strings.Repeat("content", 1000))))
	return r
}

func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.first == nil || !g.first(w, r) {
		g.Registry.ServeHTTP(w, r)
	}
}

// registries lie, stall and never end.
func registries() []hostile {
	on := func(name, want, path string, answer func(w http.ResponseWriter, r *http.Request)) hostile {
		return hostile{name: "registry: " + name, want: want, pull: func(g *registry) {
			g.first = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, path) || r.Method != http.MethodGet && path != "/v2/" {
					return false
				}
				answer(w, r)
				return true
			}
		}}
	}
	forever := func(b []byte) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}
	}
	say := func(status int, header, value, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			if header != "" {
				w.Header().Set(header, value)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	junk := bytes.Repeat([]byte("junk"), 8<<10)
	return []hostile{
		on("manifest without end", "", "/manifests/", forever(bytes.Repeat([]byte(" "), 32<<10))),
		on("manifest of html", "", "/manifests/", say(200, "Content-Type", "text/html", "<html>")),
		on("manifest of nothing", "", "/manifests/", say(200, "Content-Type", "application/vnd.oci.image.manifest.v1+json", "")),
		on("manifest with another digest", "", "/manifests/", say(200, "Docker-Content-Digest", "sha256:"+strings.Repeat("ab", 32), `{"schemaVersion":2}`)),
		on("manifest with a digest that is a path", "", "/manifests/", say(200, "Docker-Content-Digest", "sha256:../../../etc/passwd", `{"schemaVersion":2}`)),
		on("manifest that is gone", "", "/manifests/", say(404, "", "", "")),
		on("error of a megabyte", "", "/manifests/", say(500, "Content-Type", "application/json", `{"errors":[{"message":"`+strings.Repeat("x", 1<<20)+`"}]}`)),
		on("error without end", "", "/manifests/", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(400); forever(junk)(w, r) }),
		on("redirects to itself", "", "/manifests/", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}),
		on("redirects to a file", "", "/blobs/", say(307, "Location", "file:///etc/passwd", "")),
		on("redirects to nowhere", "", "/blobs/", say(307, "Location", "http://127.0.0.1:1/", "")),
		on("blob without end", "", "/blobs/", forever(junk)),
		on("blob of nothing", "", "/blobs/", say(200, "", "", "")),
		on("blob of another size than said", "", "/blobs/", say(200, "Content-Length", "5", "12345")),
		on("blob that is another", "", "/blobs/", say(200, "", "", strings.Repeat("x", 400))),
		on("blob in ranges nobody asked for", "", "/blobs/", say(206, "Content-Range", "bytes 5-9/10", "12345")),
		on("asks for a password without end", "", "/v2/", say(401, "WWW-Authenticate", `Basic realm="x"`, "")),
		on("asks for a token nowhere", "", "/v2/", say(401, "WWW-Authenticate", `Bearer realm="http://127.0.0.1:1/token"`, "")),
		on("asks for a token at a file", "", "/v2/", say(401, "WWW-Authenticate", `Bearer realm="file:///etc/passwd"`, "")),
		on("asks with nonsense", "", "/v2/", say(401, "WWW-Authenticate", `Bearer realm="`+strings.Repeat("\\", 5000), "")),
		on("asks with nothing", "", "/v2/", say(401, "", "", "")),
	}
}
