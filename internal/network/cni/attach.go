package cni

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
)

// noted is what is known of an attachment when its container is gone.
type noted struct {
	Network string // fief's name of it
	List    string
	Want    Want
	Netns   string // its path, as the plugins were told
}

// Add connects a network namespace, of which netns is a path, with what a list
// gives. Whatever fails is undone, as far as the plugins can. Network is fief's
// name of the list.
func (d *Driver) Add(ctx context.Context, network string, l *List, w Want, netns string) (got Got, err error) {
	rt, err := l.runtime(w, netns)
	if err != nil {
		return got, err
	}
	note := d.note(w.Container, w.Device)
	defer d.hold(note)()
	if err := d.undo(ctx, note, ""); err != nil { // what is left of the last time
		d.cfg.Log.Warn("what CNI plugins gave a container before is not taken back", "container", w.Container, "error", err)
	}
	b, err := json.Marshal(noted{network, l.Text, w, netns})
	if err != nil {
		return got, fault.Wrap(fault.Internal, "note", "an attachment", err, "")
	}
	if err := write(note, b); err != nil {
		return got, err
	}
	failpoint.Hit("cni-noted")
	within, cancel := context.WithTimeout(ctx, d.cfg.Limit)
	err = safely(func() error {
		result, err := d.lib.AddNetworkList(within, l.conf, rt)
		if err == nil {
			got, err = understood(result, w)
		}
		return err
	})
	cancel()
	failpoint.Hit("cni-added")
	if err == nil {
		return got, nil
	}
	err = fault.Wrap(fault.Unavailable, "connect to CNI network", network, told(err), "")
	if left := d.undo(context.WithoutCancel(ctx), note, netns); left != nil {
		d.cfg.Log.Warn("what CNI plugins began is not undone; it is tried again", "container", w.Container, "error", left)
	}
	return got, err
}

// runtime puts what is wanted into the words of CNI, and refuses what no plugin of
// the list would hear.
func (l *List) runtime(w Want, netns string) (*libcni.RuntimeConf, error) {
	rt := &libcni.RuntimeConf{ContainerID: w.Container, NetNS: netns, IfName: w.Device, CapabilityArgs: map[string]any{}}
	rt.Args = append(rt.Args, [2]string{"IgnoreUnknown", "1"})
	if len(w.Ports) > 0 {
		if !l.Has(CapPorts) {
			return nil, fault.New(fault.Unsupported, "publish ports on CNI network", l.Name, "no plugin of the list has the capability "+CapPorts, "add the plugin portmap to it")
		}
		var list []map[string]any
		for _, p := range w.Ports {
			m := map[string]any{"hostPort": p.HostPort, "containerPort": p.Container, "protocol": p.Proto}
			if p.Host.IsValid() {
				m["hostIP"] = p.Host.String()
			}
			list = append(list, m)
		}
		rt.CapabilityArgs[CapPorts] = list
	}
	// Plugins of before the capabilities take these as CNI_ARGS; whether they did is
	// seen by the result.
	if len(w.IPs) > 0 {
		var list []string
		for _, a := range w.IPs {
			list = append(list, a.String())
		}
		if l.Has(CapIPs) {
			rt.CapabilityArgs[CapIPs] = list
		} else {
			rt.Args = append(rt.Args, [2]string{"IP", list[0]})
		}
	}
	if w.MAC != "" {
		if l.Has(CapMAC) {
			rt.CapabilityArgs[CapMAC] = w.MAC
		} else {
			rt.Args = append(rt.Args, [2]string{"MAC", w.MAC})
		}
	}
	return rt, nil
}

// understood reads what the plugins say of the device, and looks whether it is
// what was wanted.
func understood(result types.Result, w Want) (got Got, err error) {
	if result == nil {
		return got, errors.New("the plugins gave no result")
	}
	r, err := current.NewResultFromResult(result)
	if err != nil {
		return got, err
	}
	mine := -1
	for i, dev := range r.Interfaces {
		if dev != nil && dev.Sandbox != "" && dev.Name == w.Device {
			mine, got.MAC = i, dev.Mac
		}
	}
	for _, ip := range r.IPs {
		if ip == nil || mine >= 0 && ip.Interface != nil && *ip.Interface != mine {
			continue
		}
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		bits, size := ip.Address.Mask.Size()
		if a = a.Unmap(); !ok || size != a.BitLen() {
			return got, errors.New("the result has an invalid address " + ip.Address.String())
		}
		p, gw := netip.PrefixFrom(a, bits), gatewayOf(ip.Gateway)
		switch {
		case a.Is4() && !got.IP4.IsValid():
			got.IP4, got.GW4 = p, gw
		case a.Is6() && !got.IP6.IsValid():
			got.IP6, got.GW6 = p, gw
		}
	}
	for _, a := range w.IPs {
		if got.IP4.Addr() != a && got.IP6.Addr() != a {
			return got, errors.New("its plugins do not give the address " + a.String() + " that was asked for")
		}
	}
	if w.MAC != "" && !strings.EqualFold(got.MAC, w.MAC) {
		return got, errors.New("its plugins do not give the hardware address " + w.MAC + " that was asked for")
	}
	if _, err := net.ParseMAC(got.MAC); err != nil {
		got.MAC = ""
	}
	got.names(r.DNS)
	return got, nil
}

func gatewayOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// names takes over what can be a line of a resolv.conf.
func (g *Got) names(dns types.DNS) {
	for _, s := range dns.Nameservers {
		if _, err := netip.ParseAddr(s); err == nil {
			g.Servers = append(g.Servers, s)
		}
	}
	word := func(s string) bool {
		return s != "" && len(s) < 256 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
	}
	search := dns.Search
	if len(search) == 0 && dns.Domain != "" {
		search = []string{dns.Domain}
	}
	for _, s := range search {
		if word(s) {
			g.Search = append(g.Search, s)
		}
	}
	for _, s := range dns.Options {
		if word(s) {
			g.Options = append(g.Options, s)
		}
	}
}

// Check asks the plugins whether what Add gave is still there (CNI's SPEC.md,
// "CHECK"), where netns is a path of its namespace now. An attachment that is not
// noted, a list of before version 0.4.0, which has no such question, and one that
// says disableCheck are as they should be. So is one whose namespace is not found
// any more where ADD was told that it is: plugins compare the two paths.
func (d *Driver) Check(ctx context.Context, w Want, netns string) error {
	note := d.note(w.Container, w.Device)
	defer d.hold(note)()
	n, err := d.read(note)
	if fault.Is(err, fault.NotFound) || err == nil && n.Want.ID != w.ID {
		return nil
	}
	if err != nil {
		return err
	}
	if !same(n.Netns, netns) {
		return nil
	}
	l, rt, err := n.again(n.Netns)
	if err != nil {
		return err
	}
	if asks, err := version.GreaterThanOrEqualTo(l.conf.CNIVersion, "0.4.0"); err != nil || !asks {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, d.cfg.Limit)
	defer cancel()
	if err := safely(func() error { return d.lib.CheckNetworkList(within, l.conf, rt) }); err != nil {
		return fault.Wrap(fault.Unavailable, "check CNI network", n.Network, told(err), "")
	}
	return nil
}

// same reports whether two paths are of one file.
func same(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// Delete takes back what Add gave. netns is a path of the namespace, empty when it
// is gone. What was not added, or is deleted already, is no error; so is another
// attachment, of another ID, that the container has by now. After a failure the
// attachment stays noted.
func (d *Driver) Delete(ctx context.Context, w Want, netns string) error {
	note := d.note(w.Container, w.Device)
	defer d.hold(note)()
	n, err := d.read(note)
	if fault.Is(err, fault.NotFound) || err == nil && n.Want.ID != w.ID {
		return nil
	}
	return d.undo(ctx, note, netns)
}

// undo is Delete. Preconditions: the note is held.
func (d *Driver) undo(ctx context.Context, note, netns string) error {
	n, err := d.read(note)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	l, rt, err := n.again(netns)
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, d.cfg.Limit)
	defer cancel()
	del := func() error { return d.lib.DelNetworkList(within, l.conf, rt) }
	failpoint.Hit("cni-deleting")
	err = safely(del)
	if errors.Is(err, errUnreadable) { // it is that of ADD, which libcni keeps; plugins must do without
		os.Remove(filepath.Join(d.cfg.State, "results", l.Name+"-"+n.Want.Container+"-"+n.Want.Device))
		err = safely(del)
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, "disconnect from CNI network", n.Network, told(err), "")
	}
	failpoint.Hit("cni-deleted")
	if err := os.Remove(note); err != nil && !os.IsNotExist(err) {
		return fault.Wrap(fault.Internal, "remove", note, err, "")
	}
	return nil
}

// Noted lists what is noted, also by daemons before this one: what was added, or
// perhaps so.
func (d *Driver) Noted() []Want {
	paths, _ := filepath.Glob(filepath.Join(d.cfg.State, "attached", "*.json"))
	var out []Want
	for _, path := range paths {
		n, err := d.read(path)
		if err == nil && d.note(n.Want.Container, n.Want.Device) != path {
			err = errors.New("it is not of that name")
		}
		if err != nil {
			d.warn(path, err)
			continue
		}
		out = append(out, n.Want)
	}
	return out
}

// read reads a note; NotFound when there is none.
func (d *Driver) read(note string) (n noted, err error) {
	b, err := os.ReadFile(note)
	if os.IsNotExist(err) {
		return n, fault.Wrap(fault.NotFound, "read", note, err, "")
	}
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	return n, fault.Wrap(fault.Corrupt, "read", note, err, "")
}

// again is what the plugins were called with.
func (n noted) again(netns string) (*List, *libcni.RuntimeConf, error) {
	l, err := Parse([]byte(n.List))
	if err != nil {
		return nil, nil, err
	}
	rt, err := l.runtime(n.Want, netns)
	return l, rt, err
}

// told keeps of an error of libcni what a plugin has said.
func told(err error) error {
	var e *types.Error
	if !errors.As(err, &e) {
		return errors.New(printable(err.Error()))
	}
	words := e.Msg
	if e.Details != "" {
		words += "; " + e.Details
	}
	if words == "" {
		words = "code " + strconv.FormatUint(uint64(e.Code), 10)
	}
	if before, _, ok := strings.Cut(err.Error(), " failed ("); ok {
		return errors.New(printable(before + ": " + words))
	}
	return errors.New(printable(words))
}

// said is told of one plugin.
func said(kind string, err error) error {
	return errors.New("plugin " + kind + ": " + told(err).Error())
}
