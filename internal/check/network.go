package check

import (
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/kernel/nft"
	"fief/internal/words/record"
)

// networks tries what networks of containers need, in a network namespace of
// their own, and reads what of the host's firewall is
// in their way.
func networks() []record.Check {
	const without = "containers can have --network none and host only"
	return append(tryAll(Network, []trial{
		{name: "bridges and veth pairs", worst: record.CheckFail, root: true, do: func() error { return apart(tryBridge) }, why: without, fix: "load the modules bridge and veth"},
		{name: "rules (nf_tables)", worst: record.CheckFail, root: true, do: func() error { return apart(tryRules) }, why: without},
	}), forwarding(), firewall())
}

// apart calls do on a thread that is in a new network namespace meanwhile. The
// namespace goes when the thread leaves it.
func apart(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer own.Close()
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			err = do()
		}
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func tryBridge() error {
	index, err := link.Bridge{Name: "fief-check", MAC: [6]byte{2}, Addrs: []link.Addr{{IP: []byte{192, 0, 2, 1}, Bits: 24}}}.Make()
	if err != nil {
		return err
	}
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer here.Close()
	var w link.Wiring
	w.Connect(link.Port{Host: "fief-check0", Master: index, Name: "fief-check1"})
	return w.Apply(here)
}

func tryRules() error {
	return nft.Table("fief-check").Replace(nft.State{Bridges: []nft.Bridge{{Name: "fief-check", Masquerade: true}}})
}

// forwarding: the daemon switches it on when it needs it, which is worth knowing
// before.
func forwarding() record.Check {
	c := record.Check{Group: Network, Name: "forwarding of IPv4", State: record.CheckOK, Found: "on"}
	if link.Get("ipv4/ip_forward") != "1" {
		c.State, c.Found = record.CheckInfo, "off"
		c.Why = "the daemon switches it on for the first network: the host passes packets on between all its networks then, unless its firewall says otherwise"
	}
	return c
}

// firewall names chains of others that drop what is forwarded. They are theirs:
// fief changes none.
func firewall() record.Check {
	c := record.Check{Group: Network, Name: "firewalls of others", State: record.CheckOK, Found: "none drops what is forwarded"}
	if os.Geteuid() != 0 {
		return skipped(c, "they can only be read as root")
	}
	found, err := nft.Droppers()
	switch {
	case err != nil:
		c.State, c.Found = record.CheckInfo, err.Error()
	case len(found) > 0:
		c.State, c.Found = record.CheckWarn, strings.Join(found, ", ")+" drops what no rule there lets pass"
		c.Why = "containers reach the world, and published ports are reached, only as far as it lets bridges of fief pass"
		c.Fix = advice(found)
	}
	return c
}

func advice(chains []string) string {
	for _, c := range chains {
		if strings.HasSuffix(c, "filter FORWARD") {
			return "let them pass: iptables -I FORWARD -i fief0 -j ACCEPT and -o fief0 (with Docker: in DOCKER-USER; with ufw: ufw route allow in on fief0); see docs/networks.md"
		}
	}
	return "add rules there that accept iifname and oifname of fief's bridges; see docs/networks.md"
}
