// Package cni connects network namespaces by plugins that others have written:
// the lists of /etc/cni/net.d, as podman and Kubernetes use them. A plugin is a
// program of the host's administrator that runs as root; it may be broken, hang
// or answer anything, and nothing it says is believed without a look.
//
// What was added to a namespace is noted on disk before the first plugin runs, so
// that it is deleted whatever becomes of the daemon meanwhile.
package cni

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"

	"fief/internal/words/fault"
)

// DefaultLimit bounds one operation, which runs all plugins of a list.
const DefaultLimit = 60 * time.Second

// Config is what a driver is made of.
type Config struct {
	Lists   string        // directory in which lists are found; empty: none are
	Plugins []string      // directories of plugins, the first that has one counts
	State   string        // directory of what is noted; made when it is needed
	Limit   time.Duration // of one operation; 0: DefaultLimit
	Log     *slog.Logger
}

// Driver runs the plugins of lists. Its methods may be called from any goroutine.
type Driver struct {
	cfg Config
	lib *libcni.CNIConfig

	mu     sync.Mutex
	busy   map[string]chan struct{} // by note: closed when the operation on it ends
	warned map[string]string        // what was said of a file that cannot be read
}

// New makes a driver. It reads nothing.
func New(cfg Config) *Driver {
	if cfg.Limit <= 0 {
		cfg.Limit = DefaultLimit
	}
	return &Driver{
		cfg: cfg, lib: libcni.NewCNIConfigWithCacheDir(cfg.Plugins, cfg.State, &runner{}),
		busy: map[string]chan struct{}{}, warned: map[string]string{},
	}
}

// Port is a port of the host that is to lead to one of the container. An invalid
// address means all of the host's.
type Port struct {
	Host      netip.Addr
	HostPort  uint16
	Container uint16
	Proto     string // "tcp", "udp" or "sctp"
}

// Want is what a container wants of a list.
type Want struct {
	ID        string // of the attachment, another one each time
	Container string // its id
	Device    string // inside
	IPs       []netip.Addr
	MAC       string
	Ports     []Port
}

// Got is what the plugins say that the container has now.
type Got struct {
	IP4, IP6 netip.Prefix
	GW4, GW6 netip.Addr // invalid: none was told
	MAC      string
	Servers  []string // of names
	Search   []string
	Options  []string
}

// note is the file of an attachment.
func (d *Driver) note(container, device string) string {
	return filepath.Join(d.cfg.State, "attached", container+"-"+device+".json")
}

// hold waits until nobody else is at work on an attachment, and returns what lets
// the next one.
func (d *Driver) hold(note string) (release func()) {
	for {
		d.mu.Lock()
		other := d.busy[note]
		if other == nil {
			mine := make(chan struct{})
			d.busy[note] = mine
			d.mu.Unlock()
			return func() {
				d.mu.Lock()
				delete(d.busy, note)
				d.mu.Unlock()
				close(mine)
			}
		}
		d.mu.Unlock()
		<-other
	}
}

// write notes b in a file, durably: what a plugin does to the host may outlive a
// power cut, and its note must then too.
func write(path string, b []byte) error {
	failed := func(err error) error { return fault.Wrap(fault.Internal, "write", path, err, "") }
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return failed(err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".note")
	if err != nil {
		return failed(err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return failed(err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return failed(err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return failed(err)
	}
	return nil
}
