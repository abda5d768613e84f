package show

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// Image is a row of images: one for each name of each image.
type Image struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
	VirtualSize  string
}

// ImageTable is the table of images.
func ImageTable(format string, digests bool) Table {
	t := Table{Format: format, Headings: Headings{
		"Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED",
		"CreatedAt": "CREATED AT", "Size": "SIZE", "VirtualSize": "SIZE", "Containers": "CONTAINERS",
		"SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
	}}
	t.Default = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	if digests {
		t.Default = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	}
	return t
}

// ImageRows makes the rows of an image. An image without a name has one row.
func ImageRows(i record.Image, trunc bool, now time.Time) []Image {
	base := Image{
		ID: i.ID, Repository: "<none>", Tag: "<none>", Digest: "<none>", CreatedSince: Ago(i.Created, now),
		CreatedAt: i.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), Size: Bytes(i.Size), VirtualSize: Space(i.Size),
		Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A",
	}
	if trunc {
		base.ID = ref.Short(strings.TrimPrefix(i.ID, "sha256:"))
	}
	digests := map[string]string{}
	for _, d := range i.Digests {
		if repo, digest, ok := strings.Cut(d, "@"); ok {
			digests[repo] = digest
		}
	}
	var rows []Image
	for _, n := range i.Names {
		row := base
		repo, tag := SplitName(n)
		row.Repository, row.Tag = Familiar(repo), tag
		if d, ok := digests[repo]; ok {
			row.Digest = d
			delete(digests, repo)
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		return rows
	}
	for _, repo := range sortedKeys(digests) {
		row := base
		row.Repository, row.Digest = Familiar(repo), digests[repo]
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		rows = []Image{base}
	}
	return rows
}

// SplitName splits a name into repository and tag. A colon before the last
// slash belongs to a registry's port.
func SplitName(name string) (repo, tag string) {
	i := strings.LastIndexByte(name, ':')
	if i < 0 || i < strings.LastIndexByte(name, '/') {
		return name, ""
	}
	return name[:i], name[i+1:]
}

// Familiar shortens a canonical name as docker shows it.
func Familiar(name string) string {
	if n, ok := strings.CutPrefix(name, "docker.io/library/"); ok {
		return n
	}
	return strings.TrimPrefix(name, "docker.io/")
}

// History is a row of history.
type History struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

// HistoryTable is the table of history.
func HistoryTable(format string) Table {
	return Table{Format: format, Headings: Headings{
		"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
	}, Default: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"}
}

// HistoryRows makes the rows of an image's history, newest first. With plain
// sizes are bytes and times are RFC 3339.
func HistoryRows(i record.Image, trunc, human bool, now time.Time) []History {
	var rows []History
	layer := 0
	for _, h := range i.History {
		row := History{
			ID: "<missing>", CreatedBy: strings.ReplaceAll(h.CreatedBy, "\t", " "), Comment: h.Comment,
			CreatedAt: h.Created.Local().Format(time.RFC3339), CreatedSince: Ago(h.Created, now), Size: "0B",
		}
		var size int64
		if !h.EmptyLayer && layer < len(i.Layers) {
			size = i.Layers[layer].Size
			layer++
		}
		row.Size = Bytes(size)
		if !human {
			row.CreatedSince, row.Size = row.CreatedAt, strconv.FormatInt(size, 10)
		}
		if trunc {
			row.CreatedBy = Ellipsis(row.CreatedBy, 45)
		}
		rows = append(rows, row)
	}
	slices.Reverse(rows)
	if len(rows) > 0 {
		rows[0].ID = i.ID
		if trunc {
			rows[0].ID = ref.Short(strings.TrimPrefix(i.ID, "sha256:"))
		}
	}
	return rows
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
