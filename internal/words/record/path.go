package record

import (
	"io/fs"
	"time"
)

// PathStat is what a name in a container is, in the form of docker's header
// X-Docker-Container-Path-Stat.
type PathStat struct {
	Name       string      `json:"name"` // the last part of what was asked for
	Size       int64       `json:"size"`
	Mode       fs.FileMode `json:"mode"`
	Mtime      time.Time   `json:"mtime"`
	LinkTarget string      `json:"linkTarget"` // absolute, of a symbolic link: where it leads at last
}
