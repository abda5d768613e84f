package cni

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"fief/internal/words/fault"
)

// The capabilities that fief has something for (CNI's CONVENTIONS.md).
const (
	CapPorts = "portMappings"
	CapIPs   = "ips"
	CapMAC   = "mac"
)

// listMax bounds a list; those in use have about 1 KiB.
const listMax = 1 << 20

const opList = "use CNI list"

// List is a configuration list.
type List struct {
	Name  string
	Path  string   // of the file it was read from; empty: of none
	Types []string // of its plugins, in their order
	Text  string   // JSON, with all plugins in it

	conf *libcni.NetworkConfigList
}

// Has reports whether a plugin of the list takes a capability.
func (l *List) Has(capability string) bool {
	return slices.ContainsFunc(l.conf.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Capabilities[capability] })
}

// Parse reads a list, or a single plugin's configuration as a list of one. Errors
// are of class Invalid. It runs nothing.
func Parse(text []byte) (*List, error) {
	conf, err := parse(text)
	if err != nil {
		return nil, err
	}
	return listed(conf)
}

func bad(name, why string) error {
	return fault.New(fault.Invalid, opList, name, why, "")
}

func parse(text []byte) (*libcni.NetworkConfigList, error) {
	if len(text) > listMax {
		return nil, bad("", "it is longer than "+strconv.Itoa(listMax)+" bytes")
	}
	var head struct {
		CNIVersion string          `json:"cniVersion,omitempty"`
		Name       string          `json:"name"`
		Type       string          `json:"type,omitempty"`
		Plugins    json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, bad("", "it is not JSON: "+err.Error())
	}
	if head.Type != "" && head.Plugins == nil { // one plugin is a list of one
		if head.Name == "" {
			return nil, bad("", "it has no name")
		}
		plugin := append(append([]byte{'['}, text...), ']')
		head.Type, head.Plugins = "", plugin
		var err error
		if text, err = json.Marshal(head); err != nil {
			return nil, bad(head.Name, err.Error())
		}
	}
	conf, err := libcni.NetworkConfFromBytes(text)
	if err != nil {
		return nil, bad("", err.Error())
	}
	return conf, nil
}

// listed looks at what libcni takes as it is.
func listed(conf *libcni.NetworkConfigList) (*List, error) {
	if err := utils.ValidateNetworkName(conf.Name); err != nil {
		return nil, bad(conf.Name, err.Error())
	}
	if len(conf.Plugins) == 0 {
		return nil, bad(conf.Name, "it has no plugins")
	}
	if conf.CNIVersion == "" {
		conf.CNIVersion = "0.1.0" // as libcni takes it
	}
	if !slices.Contains(version.All.SupportedVersions(), conf.CNIVersion) {
		return nil, bad(conf.Name, "version "+strconv.Quote(conf.CNIVersion)+" of CNI is not known; those up to "+version.Current()+" are")
	}
	l := &List{Name: conf.Name, conf: conf}
	for _, p := range conf.Plugins {
		if strings.ContainsRune(p.Network.Type, os.PathSeparator) || p.Network.Type == "." || p.Network.Type == ".." {
			return nil, bad(conf.Name, "invalid plugin name: "+p.Network.Type)
		}
		l.Types = append(l.Types, p.Network.Type)
	}
	l.Text = string(conf.Bytes)
	return l, nil
}

// Load reads the list of a file, whose absolute path is given, or that of a name
// in the directory of lists.
func (d *Driver) Load(where string) (*List, error) {
	if strings.ContainsRune(where, os.PathSeparator) {
		if !filepath.IsAbs(where) {
			return nil, fault.New(fault.Invalid, opList, where, "the path is not absolute", "the daemon has another working directory")
		}
		return read(where)
	}
	for _, l := range d.Found() {
		if l.Name == where {
			return l, nil
		}
	}
	return nil, fault.New(fault.NotFound, opList, where, "no list of that name is in "+cmp.Or(d.cfg.Lists, "a directory: the daemon has none"),
		"name a file by its absolute path, or another directory with fiefd --cni-conf-dir")
}

// read reads a file with the plugins that lie beside it, unless it says that it
// has all (CNI specification 1.1, loadOnlyInlinedPlugins).
func read(path string) (*List, error) {
	text, err := bounded(path)
	if err != nil {
		return nil, err
	}
	conf, err := parse(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, opList, path, err, "")
	}
	if !conf.LoadOnlyInlinedPlugins && utils.ValidateNetworkName(conf.Name) == nil {
		if err := beside(conf, path); err != nil {
			return nil, fault.Wrap(fault.Invalid, opList, path, err, "")
		}
	}
	l, err := listed(conf)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, opList, path, err, "")
	}
	l.Path = path
	return l, nil
}

// beside adds the plugins of further files to a list and to its text.
func beside(conf *libcni.NetworkConfigList, path string) error {
	more, err := libcni.NetworkPluginConfsFromFiles(filepath.Dir(path), conf.Name)
	if err != nil || len(more) == 0 {
		return err
	}
	conf.Plugins = append(conf.Plugins, more...)
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(conf.Bytes, &whole); err != nil {
		return err
	}
	var all []json.RawMessage
	for _, p := range conf.Plugins {
		all = append(all, p.Bytes)
	}
	if whole["plugins"], err = json.Marshal(all); err != nil {
		return err
	}
	conf.Bytes, err = json.Marshal(whole)
	return err
}

func bounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		class := fault.Invalid
		if os.IsNotExist(err) {
			class = fault.NotFound
		}
		return nil, fault.Wrap(class, opList, path, errors.Unwrap(err), "")
	}
	defer f.Close()
	if i, err := f.Stat(); err != nil || !i.Mode().IsRegular() {
		return nil, fault.New(fault.Invalid, opList, path, "it is not a file", "")
	}
	b, err := io.ReadAll(io.LimitReader(f, listMax+1))
	return bytes.Clone(b), fault.Wrap(fault.Internal, opList, path, err, "")
}

// Found are the lists of the directory, in the order of the names of their files;
// of several with one name the first, as podman and Kubernetes have it. What
// cannot be read is passed over, and told once.
func (d *Driver) Found() []*List {
	if d.cfg.Lists == "" {
		return nil
	}
	entries, err := os.ReadDir(d.cfg.Lists) // by name
	if err != nil && !os.IsNotExist(err) {
		d.warn(d.cfg.Lists, err)
	}
	var out []*List
	seen := map[string]bool{}
	for _, kinds := range [][]string{{".conflist"}, {".conf", ".json"}} {
		for _, e := range entries {
			if !slices.Contains(kinds, filepath.Ext(e.Name())) {
				continue
			}
			path := filepath.Join(d.cfg.Lists, e.Name())
			l, err := read(path)
			if err != nil {
				d.warn(path, err)
				continue
			}
			if !seen[l.Name] {
				seen[l.Name] = true
				out = append(out, l)
			}
		}
	}
	return out
}

// warn says what is wrong with a file, once for as long as it is that.
func (d *Driver) warn(path string, err error) {
	d.mu.Lock()
	said := d.warned[path] == err.Error()
	d.warned[path] = err.Error()
	d.mu.Unlock()
	if !said {
		d.cfg.Log.Warn("a CNI list is passed over", "file", path, "error", err)
	}
}

// Validate asks each plugin of a list whether it is there and takes its version.
func (d *Driver) Validate(ctx context.Context, l *List) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Limit)
	defer cancel()
	for _, kind := range l.Types {
		info, err := d.lib.GetVersionInfo(ctx, kind)
		if err != nil {
			return fault.Wrap(fault.Invalid, opList, l.Name, said(kind, err), "plugins are looked for in "+strings.Join(d.cfg.Plugins, ", ")+" (fiefd --cni-plugin-dir)")
		}
		if !slices.Contains(info.SupportedVersions(), l.conf.CNIVersion) {
			return bad(l.Name, "plugin "+kind+" does not support version "+strconv.Quote(l.conf.CNIVersion)+" of CNI, only "+strings.Join(info.SupportedVersions(), ", "))
		}
	}
	return nil
}
