package record

import "time"

// Volume is a directory that outlives containers. What is in it is stored with
// inside ids.
type Volume struct {
	Version    int
	Name       string
	Driver     string // "local"
	Created    time.Time
	Labels     map[string]string `json:",omitempty"`
	Options    map[string]string `json:",omitempty"` // of the driver: type, o, device, size
	Anonymous  bool              `json:",omitempty"` // its name is of the engine's making
	Container  string            `json:",omitempty"` // the container that an anonymous one was made for, as long as that is there
	Project    uint32            `json:",omitempty"` // id of its quota on the data root's file system; 0: none
	Made       bool              // its directory is there
	Mountpoint string            `json:",omitempty"` // where its files are, for showing; not stored
	Users      []string          `json:",omitempty"` // ids of the containers that have it, whether they run or not; not stored
}

// AnonymousLabel marks volumes without a name of their own, for Docker's clients.
const AnonymousLabel = "com.docker.volume.anonymous"
