package show

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/docker/go-units"

	"fief/internal/words/record"
)

// Space is a size as docker's sums have it, with four digits.
func Space(n int64) string { return units.HumanSize(float64(n)) }

// Disk is what `system df` shows.
type Disk struct {
	Images     []record.Image
	Usage      record.Usage
	Containers []Sized
	Volumes    []SizedVolume
}

// Sized is a container and the bytes of its writable layer.
type Sized struct {
	record.Container
	Upper int64
}

// DiskRow is a row of system df. Fields are docker's.
type DiskRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

// DiskTable is the table of system df.
func DiskTable(format string) Table {
	return Table{Format: format, Headings: Headings{
		"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
	}, Default: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"}
}

// Rows are docker's four: scripts look for each by its type.
func (d Disk) Rows() []DiskRow {
	return []DiskRow{d.images(), d.containers(), d.volumes(), {"0", "0B", "0B", "0", "Build Cache"}}
}

// images says that what no image in use has is reclaimable. docker's own client
// calls what several images share reclaimable too, even when all are in use.
func (d Disk) images() DiskRow {
	uses := d.uses()
	var active []record.Image
	for _, i := range d.Images {
		if uses[i.ID] > 0 {
			active = append(active, i)
		}
	}
	return diskRow("Images", len(d.Images), len(active), d.Usage.Layers, d.Usage.Layers-record.Measure(active).Layers)
}

func (d Disk) containers() DiskRow {
	active, size, idle := 0, int64(0), int64(0)
	for _, c := range d.Containers {
		size += c.Upper
		if c.State.Status == record.Running {
			active++
		} else {
			idle += c.Upper
		}
	}
	return diskRow("Containers", len(d.Containers), active, size, idle)
}

func diskRow(kind string, total, active int, size, reclaimable int64) DiskRow {
	row := DiskRow{Type: kind, TotalCount: strconv.Itoa(total), Active: strconv.Itoa(active), Size: Space(size), Reclaimable: Space(reclaimable)}
	if size > 0 {
		row.Reclaimable += fmt.Sprintf(" (%d%%)", reclaimable*100/size)
	}
	return row
}

// uses counts the containers of each image.
func (d Disk) uses() map[string]int {
	uses := map[string]int{}
	for _, c := range d.Containers {
		uses[c.ImageID]++
	}
	return uses
}

// verbose is what the template of system df -v sees, all at once. Fields are
// docker's; caches there are none.
type verbose struct {
	Images     []Image
	Containers []Container
	Volumes    []Volume
	BuildCache []struct{}
}

// Verbose writes tables of the images and the containers, or all of them by a
// template.
func (d Disk) Verbose(w io.Writer, format string, now time.Time) error {
	switch format {
	case "", "table":
		return d.verbose(true, now).tables(w)
	case "json":
		format = "{{json .}}"
	}
	tmpl, err := parse(format)
	if err != nil {
		return err
	}
	return execute(w, tmpl, d.verbose(false, now))
}

func (d Disk) verbose(trunc bool, now time.Time) verbose {
	v := verbose{Images: []Image{}, Containers: []Container{}, Volumes: []Volume{}, BuildCache: []struct{}{}}
	uses := d.uses()
	for _, i := range d.Images {
		shared := d.Usage.Shared[i.ID]
		row := ImageRows(i, trunc, now)[0] // by its first name alone
		row.SharedSize, row.UniqueSize, row.Containers, row.Digest = Space(shared), Space(i.Size-shared), strconv.Itoa(uses[i.ID]), ""
		v.Images = append(v.Images, row)
	}
	for _, c := range d.Containers {
		row := ContainerRow(c.Container, trunc, now, -1, -1)
		row.Size = Bytes(c.Upper)
		v.Containers = append(v.Containers, row)
	}
	for _, vol := range d.Volumes {
		v.Volumes = append(v.Volumes, VolumeRow(vol.Volume, vol.Size))
	}
	return v
}

func (v verbose) tables(w io.Writer) error {
	fmt.Fprint(w, "Images space usage:\n\n")
	t := ImageTable("", false)
	t.Default += "\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}"
	if err := Write(w, t, v.Images); err != nil {
		return err
	}
	fmt.Fprint(w, "\nContainers space usage:\n\n")
	t = ContainerTable("", false)
	t.Default = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}"
	if err := Write(w, t, v.Containers); err != nil {
		return err
	}
	fmt.Fprint(w, "\nLocal Volumes space usage:\n\n")
	t = Table{Headings: Headings{"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}, Default: "{{.Name}}\t{{.Links}}\t{{.Size}}"}
	if err := Write(w, t, v.Volumes); err != nil {
		return err
	}
	fmt.Fprint(w, "\nBuild cache usage: 0B\n\n")
	t = Table{Headings: Headings{"ID": "CACHE ID", "Type": "CACHE TYPE", "Size": "SIZE", "Created": "CREATED", "Used": "LAST USED", "Usage": "USAGE", "Shared": "SHARED"},
		Default: "{{.ID}}\t{{.Type}}\t{{.Size}}\t{{.Created}}\t{{.Used}}\t{{.Usage}}\t{{.Shared}}"}
	return Write(w, t, v.BuildCache)
}
