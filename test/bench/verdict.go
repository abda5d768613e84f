package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// verdict is what a run says about one promise, or one figure beside it.
type verdict struct {
	What   string `json:"what"`
	Got    string `json:"got"`
	Beside string `json:"beside,omitempty"`
	Ratio  string `json:"ratio,omitempty"`
	Limit  string `json:"promised,omitempty"`
	Holds  string `json:"holds,omitempty"` // "yes", "NO", or why it cannot be told
}

func holds(yes bool) string {
	if yes {
		return "yes"
	}
	return "NO"
}

// missing says that what a promise compares with is not there.
func missing(what, peer, why string) verdict {
	return verdict{What: what, Holds: peer + " is missing: " + why}
}

// compared judges a ratio of two figures in milliseconds. A limit of 0 is none.
func compared(what string, got float64, peer string, beside, limit float64) verdict {
	v := verdict{What: what, Got: duration(got), Beside: peer + " " + duration(beside), Ratio: fmt.Sprintf("%.3f", got/beside)}
	if limit > 0 {
		v.Limit, v.Holds = fmt.Sprintf("≤ %g ×", limit), holds(got <= limit*beside)
	}
	return v
}

// bounded judges a figure by itself.
func bounded(what string, got, limit float64, unit string) verdict {
	return verdict{What: what, Got: fmt.Sprintf("%.4g %s", got, unit), Limit: fmt.Sprintf("≤ %g %s", limit, unit), Holds: holds(got <= limit)}
}

func duration(ms float64) string {
	if ms >= 1000 {
		return fmt.Sprintf("%.2f s", ms/1000)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

func printVerdicts(list []verdict) {
	if len(list) == 0 {
		return
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nWHAT (MEDIANS)\tFIEF\tBESIDE\tRATIO\tPROMISED\tHOLDS")
	for _, v := range list {
		row := []string{v.What, v.Got, v.Beside, v.Ratio, v.Limit, v.Holds}
		for i, s := range row {
			if s == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	fmt.Fprintln(w)
	w.Flush()
}

// judgePulls compares fief's pulls with the others'.
func (p *pulls) judgePulls(list []*puller) (rows []*contestant, verdicts []verdict) {
	by := map[string]*puller{}
	for _, one := range list {
		acked := contestant{Runs: slices.Clone(one.Acked)}
		acked.median()
		one.median()
		by[one.Name] = one
		row := one.contestant
		row.Name = fmt.Sprintf("%s pull, on disk (answered after %s)", one.Name, duration(acked.P50))
		rows = append(rows, &row)
	}
	fief := by["fief"]
	if len(fief.Runs) == 0 {
		return rows, []verdict{missing("pull", "fief", "every pull failed")}
	}
	for _, peer := range []struct {
		name  string
		limit float64
	}{{"podman", 0.5}, {"docker", 0.3}, {"tar", 0}, {"skopeo", 0}} {
		what := "pull beside " + peer.name
		if one := by[peer.name]; one == nil {
			verdicts = append(verdicts, missing(what, peer.name, p.absent[peer.name]))
		} else if len(one.Runs) == 0 {
			verdicts = append(verdicts, missing(what, peer.name, "every pull failed"))
		} else {
			verdicts = append(verdicts, compared(what, fief.P50, peer.name, one.P50, peer.limit))
		}
	}
	memory := bounded("peak memory of a pull", float64(fief.peak)/1e3, 150, "MB")
	for _, name := range []string{"podman", "docker"} {
		if one := by[name]; one != nil && one.peak > 0 {
			memory.Beside += fmt.Sprintf("%s %.0f MB ", name, float64(one.peak)/1e3)
		}
	}
	return rows, append(verdicts, memory)
}
