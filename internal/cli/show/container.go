package show

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// Container is a row of ps. Fields are docker's.
type Container struct {
	Command      string
	CreatedAt    string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Platform     string
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string
	Userns       string // the host ids of container root, or "host"

	labels map[string]string
}

// Label returns one label of the container.
func (c *Container) Label(name string) string { return c.labels[name] }

// ContainerTable is the table of ps.
func ContainerTable(format string, size bool) Table {
	t := Table{Format: format, Headings: Headings{
		"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
		"Status": "STATUS", "State": "STATE", "Ports": "PORTS", "Names": "NAMES", "Size": "SIZE", "Labels": "LABELS",
		"Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM", "Userns": "HOST IDS",
	}}
	t.Default = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
	if size {
		t.Default += "\t{{.Size}}"
	}
	return t
}

// ContainerRow makes the row of a container as of now. Upper and whole are
// its sizes in bytes, negative when not known.
func ContainerRow(c record.Container, trunc bool, now time.Time, upper, whole int64) Container {
	row := Container{
		ID: c.ID, Image: c.Image, Names: c.Name, Networks: networkNames(c), Ports: Ports(c), Platform: c.Platform, State: c.State.Word(),
		Status: Status(c.State, now), RunningFor: Ago(c.Created, now), CreatedAt: c.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"),
		Labels: joinLabels(c.Labels), labels: c.Labels, Userns: hostIDs(c.Identity),
	}
	command := commandLine(c.Path, c.Args)
	if trunc {
		row.ID, command = ref.Short(c.ID), Ellipsis(command, 20)
		if ref.IsID(strings.TrimPrefix(c.Image, "sha256:")) {
			row.Image = ref.Short(strings.TrimPrefix(c.Image, "sha256:"))
		}
	}
	row.Command = strconv.Quote(command)
	row.Mounts, row.LocalVolumes = mounts(c.Mounts, trunc)
	if upper >= 0 {
		row.Size = fmt.Sprintf("%s (virtual %s)", Bytes(upper), Bytes(whole))
	}
	return row
}

func networkNames(c record.Container) string {
	if len(c.Net.Endpoints) == 0 {
		return c.Network
	}
	var names []string
	for _, e := range c.Net.Endpoints {
		names = append(names, e.Network)
	}
	return strings.Join(names, ",")
}

// Status is docker's sentence about a state.
func Status(s record.State, now time.Time) string {
	switch s.Status {
	case record.Running:
		up := "Up " + units.HumanDuration(now.Sub(s.StartedAt))
		if s.Paused {
			return up + " (Paused)"
		}
		return up + s.HealthNote()
	case record.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, units.HumanDuration(now.Sub(s.FinishedAt)))
	case record.Removing:
		return "Removal In Progress"
	case record.Dead:
		return "Dead"
	case record.Created:
		return "Created"
	}
	if s.FinishedAt.IsZero() {
		return "Created"
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, units.HumanDuration(now.Sub(s.FinishedAt)))
}

// Ago says how long ago t was: "3 minutes ago".
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return units.HumanDuration(now.Sub(t)) + " ago"
}

// Bytes prints a size as docker does: three digits, powers of ten.
func Bytes(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// Ellipsis cuts s to n characters, the last of which then is an ellipsis.
func Ellipsis(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// commandLine joins a command as docker's API does.
func commandLine(path string, args []string) string {
	words := []string{path}
	for _, a := range args {
		if strings.ContainsRune(a, ' ') {
			a = "'" + a + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

func mounts(ms []record.Mount, trunc bool) (all, volumes string) {
	var names []string
	n := 0
	for _, m := range ms {
		name := m.Source
		if m.Kind == "volume" {
			name = m.Name
			n++
		}
		if name == "" {
			continue
		}
		if trunc {
			name = Ellipsis(name, 15)
		}
		names = append(names, name)
	}
	return strings.Join(names, ","), strconv.Itoa(n)
}

func joinLabels(labels map[string]string) string {
	var all []string
	for _, k := range sortedKeys(labels) {
		all = append(all, k+"="+labels[k])
	}
	return strings.Join(all, ",")
}

func hostIDs(i record.Identity) string {
	if i.Mode == "host" {
		return "host"
	}
	for _, s := range i.UID {
		if s.In == 0 {
			return fmt.Sprintf("%d+%d", s.Out, s.N)
		}
	}
	return ""
}
