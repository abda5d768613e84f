package network

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"fief/internal/kernel/link"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// Options of networks, in Docker's words.
const (
	optName       = "com.docker.network.bridge.name"
	optMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optICC        = "com.docker.network.bridge.enable_icc"
	optBinding    = "com.docker.network.bridge.host_binding_ipv4"
	optMTU        = "com.docker.network.driver.mtu"
	optParent     = "parent"
	optMacMode    = "macvlan_mode"
	optIPMode     = "ipvlan_mode"
	optList       = "conflist"
)

// Create makes a network, in the kernel as well. A name that is taken is a
// Conflict; Unsupported, or Denied, where this host cannot have bridges.
func (r *Room) Create(a ask.CreateNetwork) (record.Network, error) {
	list, err := r.list(a) // runs programs, and must not hold r.mu
	if err != nil {
		return record.Network{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := record.Network{
		Version: record.Version, Name: a.Name, ID: ref.NewID(), Created: time.Now().UTC(), Driver: a.Driver, IPv6: a.IPv6, NoIPv4: a.NoIPv4,
		Internal: a.Internal, Attachable: a.Attachable, Labels: a.Labels, Options: a.Options, List: list, Subnets: a.Subnets,
	}
	if rec.Driver == "" {
		rec.Driver = driverBridge
	}
	if err := r.checkNew(&rec); err != nil {
		return rec, err
	}
	for _, s := range a.Subnets {
		rec.IPv6 = rec.IPv6 || s.Prefix.IsValid() && s.Prefix.Addr().Is6()
	}
	if rec.Driver == driverCNI {
		rec.NoIPv4 = true // none is chosen: the plugins do
	}
	defer r.turn()()
	if rec.Subnets, err = r.subnets(a.Subnets, !rec.NoIPv4, rec.IPv6); err != nil {
		return rec, err
	}
	if err := r.checkRoutes(rec); err != nil {
		return rec, err
	}
	for i, s := range rec.Subnets {
		if modeOf(rec, s.Prefix.Addr().Is4()) == modeIsolated {
			rec.Subnets[i].Gateway = netip.Addr{} // not the host's either
		}
	}
	// The record comes first and goes last: the next daemon makes the bridge of
	// one that has none, but nobody would know a bridge without a record.
	if err := r.cfg.Networks.Put(rec.ID, rec); err != nil {
		return rec, err
	}
	failpoint.Hit("network-recorded")
	n := r.add(rec)
	if err := r.up(n); err != nil {
		r.down(n)
		delete(r.nets, rec.ID)
		return rec, errors.Join(err, r.cfg.Networks.Delete(rec.ID))
	}
	failpoint.Hit("network-made")
	return rec, nil
}

// checkNew refuses what cannot be and names the device.
func (r *Room) checkNew(rec *record.Network) error {
	if err := ref.CheckName(rec.Name); err != nil && !(len(rec.Name) == 1 && ref.CheckName(rec.Name+"0") == nil) {
		return fault.Say(fault.Invalid, "invalid network name: "+rec.Name+": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
	}
	if slices.Contains([]string{"none", "host", DefaultName, "default"}, rec.Name) {
		return fault.Say(fault.Denied, "operation is not permitted on predefined "+rec.Name+" network")
	}
	if r.named(rec.Name) != nil {
		return fault.Say(fault.Conflict, "network with name "+rec.Name+" already exists")
	}
	for _, opt := range []string{optMasquerade, optICC} {
		if v, set := rec.Options[opt]; set {
			if _, err := strconv.ParseBool(v); err != nil {
				return fault.Say(fault.Invalid, "failed to parse "+opt+" value: "+strconv.Quote(v))
			}
		}
	}
	if v := rec.Options[optMTU]; v != "" {
		if n, err := strconv.Atoi(v); err != nil || n < 68 || n > 65535 {
			return fault.Say(fault.Invalid, "failed to parse "+optMTU+" value: "+strconv.Quote(v))
		}
	}
	if err := checkGateways(*rec); err != nil {
		return err
	}
	return r.nameDevice(rec)
}

func (r *Room) nameDevice(rec *record.Network) error {
	switch rec.Driver {
	case driverBridge:
		rec.Device = rec.Options[optName]
		if rec.Device == "" {
			rec.Device = "br-" + ref.Short(rec.ID)
		}
		for _, n := range r.nets {
			if n.rec.Driver == driverBridge && n.rec.Device == rec.Device {
				return fault.Say(fault.Conflict, "bridge "+rec.Device+" is already used by network "+n.rec.Name)
			}
		}
		all, err := link.Devices()
		if err != nil {
			return err
		}
		for _, d := range all {
			if d.Name == rec.Device {
				return fault.New(fault.Conflict, "create network", rec.Name, "there is a network device "+d.Name+" already, which is not fief's", "choose another name with -o "+optName+"=NAME")
			}
		}
		return nil
	case driverMacvlan, driverIPvlan:
		rec.Device = rec.Options[optParent]
		if rec.Device == "" {
			return fault.New(fault.Invalid, "create network", rec.Name, "a "+rec.Driver+" network is on a device of the host", "name it with -o parent=DEVICE")
		}
		_, err := vlanMode(*rec)
		return err
	case driverCNI:
		return nil
	}
	return fault.Say(fault.NotFound, `could not find plugin `+rec.Driver+` in v1 plugin registry: plugin not found`)
}

// vlanMode is the mode of a macvlan or ipvlan device (linux/if_link.h).
func vlanMode(rec record.Network) (uint32, error) {
	modes, word := map[string]uint32{"": 4, "bridge": 4, "private": 1, "vepa": 2, "passthru": 8}, rec.Options[optMacMode]
	if rec.Driver == driverIPvlan {
		modes, word = map[string]uint32{"": 0, "l2": 0, "l3": 1, "l3s": 2}, rec.Options[optIPMode]
	}
	mode, ok := modes[word]
	if !ok {
		return 0, fault.Say(fault.Invalid, "invalid "+rec.Driver+" mode: "+word)
	}
	return mode, nil
}

// Remove removes a network that no running container is on.
func (r *Room) Remove(name string) (record.Network, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.find(name)
	if err != nil {
		return record.Network{}, err
	}
	rec := r.shown(n)
	if r.found[rec.ID] {
		return rec, fault.New(fault.Denied, "remove network", rec.Name, "it is a list of CNI's, which fief has not made", "remove "+rec.Options[optList])
	}
	if Fixed(rec) {
		return rec, fault.Say(fault.Denied, rec.Name+" is a pre-defined network and cannot be removed")
	}
	if len(rec.Members) > 0 {
		m := rec.Members[0]
		return rec, fault.Say(fault.Denied, "error while removing network: network "+rec.Name+" has active endpoints (name:"+
			strconv.Quote(m.Name)+" id:"+strconv.Quote(ref.Short(m.Endpoint.ID))+")")
	}
	r.down(n) // made again when it is used, should the record stay
	failpoint.Hit("network-unmade")
	if err := r.cfg.Networks.Delete(rec.ID); err != nil {
		return rec, err
	}
	failpoint.Hit("network-unrecorded")
	delete(r.nets, rec.ID)
	return rec, nil
}

// Fixed reports whether a network is always there, or is another's to remove.
func Fixed(rec record.Network) bool {
	return rec.Driver == driverCNI && rec.ID == FixedID("cni "+rec.Name) || rec.Name == DefaultName || rec.Driver == driverNull || rec.Driver == driverHost
}

func (n *network) option(name string, otherwise bool) bool {
	v, err := strconv.ParseBool(n.rec.Options[name])
	if err != nil {
		return otherwise
	}
	return v
}

func (n *network) mtu() uint32 {
	v, err := strconv.ParseUint(n.rec.Options[optMTU], 10, 16)
	if err != nil {
		return 1500
	}
	return uint32(v)
}
