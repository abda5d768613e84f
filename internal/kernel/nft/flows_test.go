package nft_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/kernel/link/linktest"
	"fief/internal/kernel/nft"
)

// TestForget: a sender that has begun before its port was published reaches the
// container as soon as it is, and the next one when that has ended.
func TestForget(t *testing.T) {
	linktest.Alone(t)
	if err := link.Set("ipv4/ip_forward=1"); err != nil {
		t.Fatal(err)
	}
	one, outer := bridge(t, "fi1", "10.91.1.1/24"), bridge(t, "outer0", "192.0.2.1/24")
	a := wire(t, link.Port{Host: "va", Master: one, Addrs: []link.Addr{addr("10.91.1.2/24")}, Routes: []link.Route{via("10.91.1.1")}})
	b := wire(t, link.Port{Host: "vb", Master: one, Addrs: []link.Addr{addr("10.91.1.3/24")}, Routes: []link.Route{via("10.91.1.1")}})
	world := wire(t, link.Port{Host: "vw", Master: outer, Addrs: []link.Addr{addr("192.0.2.2/24")}, Routes: []link.Route{via("192.0.2.1")}})
	state := nft.State{Bridges: []nft.Bridge{{Name: "fi1", Masquerade: true}}}
	if err := table.Replace(state); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Drop() })
	listen := func(s linktest.Space) (c net.PacketConn) {
		if err := s.Do(func() (err error) { c, err = net.ListenPacket("udp4", ":53"); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	first, second := listen(a), listen(b)
	var sender net.Conn
	if err := world.Do(func() (err error) { sender, err = net.Dial("udp4", "192.0.2.1:5353"); return err }); err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	arrives := func(at net.PacketConn) bool {
		for range 2 { // the first write may only tell that nobody listened before
			sender.Write([]byte("x"))
		}
		at.SetReadDeadline(time.Now().Add(2 * time.Second))
		_, _, err := at.ReadFrom(make([]byte, 1))
		return err == nil
	}
	if arrives(first) {
		t.Error("a port that is not published")
	}
	drain := func(c net.PacketConn) {
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		for {
			if _, _, err := c.ReadFrom(make([]byte, 1)); err != nil {
				return
			}
		}
	}
	port := publish(unix.IPPROTO_UDP, "0.0.0.0:5353", "10.91.1.2:53")
	if err := table.Add(nft.State{Ports: []nft.Port{port}}); err != nil {
		t.Fatal(err)
	}
	if err := nft.Forget([]uint16{5353}); err != nil {
		t.Fatal(err)
	}
	if !arrives(first) {
		t.Error("a flow of before stays where it was")
	}
	if err := table.Remove(nft.State{Ports: []nft.Port{port}}); err != nil {
		t.Fatal(err)
	}
	if err := table.Add(nft.State{Ports: []nft.Port{publish(unix.IPPROTO_UDP, "0.0.0.0:5353", "10.91.1.3:53")}}); err != nil {
		t.Fatal(err)
	}
	if arrives(second) {
		t.Error("the flow is led anew by itself: there is nothing to forget")
	}
	drain(first)
	if err := nft.Forget([]uint16{5353}); err != nil {
		t.Fatal(err)
	}
	if !arrives(second) {
		t.Error("the flow still leads to the first container")
	}
}
