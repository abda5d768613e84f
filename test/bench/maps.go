package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// unused are host ids above the pool, for maps that no container had.
const unused = 3 << 30

// newMaps starts containers of the image under maps that no container had, each
// twice: the second start finds whatever the first had to make.
func (p *pulls) newMaps() ([]*contestant, []verdict) {
	const maps = 20
	p.must(p.fief("pull", "-q", p.name))
	first := &contestant{Group: "maps", Name: "fief run, first start under a new map"}
	second := &contestant{Group: "maps", Name: "fief run, second start under the same map"}
	start := func(c *contestant, base int) {
		endIfAsked()
		m := fmt.Sprintf("0:%d:65536", base)
		cmd := p.fief("run", "--rm", "--network", "none", "--uidmap", m, "--gidmap", m, p.name, "/bin/true")
		time.Sleep(40 * time.Millisecond)
		from := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %s\n", c.Name, lastLine(out))
			c.Fails++
			return
		}
		c.Runs = append(c.Runs, time.Since(from))
	}
	for range 3 {
		start(&contestant{}, unused)
	}
	time.Sleep(time.Second) // what removed containers had goes in the background
	before := storedBelow(p.work + "/data")
	for i := range maps {
		start(first, unused+(i+1)<<16)
		start(second, unused+(i+1)<<16)
	}
	time.Sleep(time.Second)
	after := storedBelow(p.work + "/data")
	first.median()
	second.median()
	rows := []*contestant{first, second}
	if first.Fails+second.Fails > 0 {
		return rows, []verdict{missing("a first start under a new map", "fief", "a start failed")}
	}
	added := bounded("a first start under a new map adds", first.P50-second.P50, 5, "ms")
	added.Beside = fmt.Sprintf("first %.1f ms, second %.1f ms", first.P50, second.P50)
	return rows, []verdict{added,
		bounded(fmt.Sprintf("%d new maps add", maps), float64(after.bytes-before.bytes), 0, "bytes"),
		bounded(fmt.Sprintf("%d new maps add", maps), float64(after.inodes-before.inodes), 0, "inodes")}
}

// stored is what lies below a directory: inodes, and bytes of blocks.
type stored struct{ inodes, bytes int64 }

// storedBelow counts what is in a data root but the stock of ready uppers, of
// which there are as many whatever the maps, and the daemon's own state.
func storedBelow(dir string) (s stored) {
	check(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // removed meanwhile
		}
		if d.IsDir() && d.Name() == "uppers" {
			return fs.SkipDir
		}
		var st syscall.Stat_t
		if syscall.Lstat(path, &st) == nil && filepath.Base(path) != "state.db" {
			s.inodes, s.bytes = s.inodes+1, s.bytes+st.Blocks*512
		}
		return nil
	}))
	return s
}

// commits times a commit of ten changed files of the image.
func (p *pulls) commits() ([]*contestant, []verdict) {
	const name, times, files = "changed", 15, 10
	row := &contestant{Group: "commit", Name: fmt.Sprintf("fief commit, %d files changed", files)}
	change := fmt.Sprintf(`n=0; for f in /usr/share/perl/5*/*.p[ml]; do echo changed >>"$f"; n=$((n+1)); [ $n -lt %d ] || break; done; [ $n = %[1]d ]`, files)
	p.must(p.fief("pull", "-q", p.name))
	for i := range times {
		endIfAsked()
		p.must(p.fief("run", "--name", name, "--network", "none", p.name, "/bin/bash", "-c", change+" # "+strconv.Itoa(i)))
		syscall.Sync()
		time.Sleep(200 * time.Millisecond)
		from := time.Now()
		out, err := p.fief("commit", name, "bench-commit:"+strconv.Itoa(i)).CombinedOutput()
		took := time.Since(from)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %s\n", row.Name, lastLine(out))
			row.Fails++
		} else {
			row.Runs = append(row.Runs, took)
		}
		changed, err := p.fief("diff", name).Output()
		check(err)
		if n := strings.Count(string(changed), "\nC /usr/share/perl/5"); n < files {
			fatal(fmt.Errorf("a container of the bench changed %d files, not %d:\n%s", n, files, changed))
		}
		p.must(p.fief("rm", "-f", name))
	}
	row.median()
	if len(row.Runs) == 0 {
		return []*contestant{row}, []verdict{missing("commit", "fief", "every commit failed")}
	}
	return []*contestant{row}, []verdict{bounded(fmt.Sprintf("commit of a %d-file change", files), row.P50, 150, "ms")}
}
