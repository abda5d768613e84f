package show

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"fief/internal/words/record"
)

// Volume is a row of volume ls. Fields are docker's.
type Volume struct {
	Availability string
	Driver       string
	Group        string
	Labels       string
	Links        string
	Mountpoint   string
	Name         string
	Scope        string
	Size         string
	Status       string
}

// VolumeTable is the table of volume ls.
func VolumeTable(format string) Table {
	return Table{Format: format, Headings: Headings{
		"Driver": "DRIVER", "Name": "VOLUME NAME", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS", "Links": "LINKS", "Size": "SIZE",
	}, Default: "{{.Driver}}\t{{.Name}}"}
}

// VolumeRow makes the row of a volume; a negative size is not known.
func VolumeRow(v record.Volume, size int64) Volume {
	row := Volume{
		Availability: "N/A", Group: "N/A", Status: "N/A", Links: "N/A", Size: "N/A", Scope: "local", Driver: v.Driver, Name: v.Name, Mountpoint: v.Mountpoint,
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(v.Labels)) {
		labels = append(labels, k+"="+v.Labels[k])
	}
	row.Labels = strings.Join(labels, ",")
	if size >= 0 {
		row.Size, row.Links = Space(size), strconv.Itoa(len(v.Users))
	}
	return row
}

// volumeObject is a volume as docker's inspect shows it.
type volumeObject struct {
	CreatedAt  string
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
}

// InspectedVolume makes what inspect shows of a volume.
func InspectedVolume(v record.Volume) any {
	return volumeObject{
		CreatedAt: v.Created.Format(time.RFC3339), Driver: v.Driver, Labels: v.Labels, Mountpoint: v.Mountpoint, Name: v.Name, Options: v.Options, Scope: "local",
	}
}

// SizedVolume is a volume and the bytes of its files.
type SizedVolume struct {
	record.Volume
	Size int64
}

// volumes is the row of system df: what no container has is reclaimable.
func (d Disk) volumes() DiskRow {
	active, size, idle := 0, int64(0), int64(0)
	for _, v := range d.Volumes {
		size += v.Size
		if len(v.Users) > 0 {
			active++
		} else {
			idle += v.Size
		}
	}
	return diskRow("Local Volumes", len(d.Volumes), active, size, idle)
}
