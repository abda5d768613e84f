package network_test

import (
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fief/internal/kernel/link/linktest"
)

// answer has a namespace answer each datagram to a port with whom it has it from.
func answer(t *testing.T, s linktest.Space, port string) {
	t.Helper()
	// Each family by its name: what package net makes of "udp" depends on the namespace
	// in which this process has first used it.
	some := false
	for _, network := range []string{"udp4", "udp6"} {
		var c net.PacketConn
		if s.Do(func() (err error) { c, err = net.ListenPacket(network, ":"+port); return err }) != nil {
			continue
		}
		some = true
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 1<<16)
			for {
				_, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(from.String())
				c.WriteTo([]byte(host), from)
			}
		}()
	}
	if !some {
		t.Fatalf("nothing listens on port %s of UDP", port)
	}
}

// asker asks by one datagram after another, for a while, who is seen.
func asker(in func(func() error) error, long time.Duration) func(string) (string, error) {
	return func(to string) (who string, err error) {
		err = in(func() error {
			c, err := net.Dial("udp", to)
			if err != nil {
				return err
			}
			defer c.Close()
			buf := make([]byte, 100)
			for end := time.Now().Add(long); ; {
				c.Write([]byte("who"))
				c.SetReadDeadline(time.Now().Add(time.Second))
				n, err := c.Read(buf)
				if err == nil {
					who = string(buf[:n])
					return nil
				}
				if time.Now().After(end) {
					return err
				}
			}
		})
		return who, err
	}
}

func here(do func() error) error { return do() }

// TestDatagrams: UDP to ::1 and by the family that a container does not have is
// passed on, answered from where it was sent to, and only where it is published;
// the kernel leads the rest.
func TestDatagrams(t *testing.T) {
	d := start(t)
	out := world(t)
	if b, err := exec.Command("ip", "-6", "address", "add", "2001:db8::7/64", "dev", "outside0", "nodad").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	d.Must(t, "network", "create", "--ipv6", "--ipv4=false", "six")
	run4 := run(t, d, "four", "-p", "5353:53/udp", "-p", "[::1]:5354:53/udp", "-p", "127.0.0.1:5355:53/udp")
	run6 := run(t, d, "six", "--network", "six", "-p", "5363:53/udp")
	answer(t, run4, "53")
	answer(t, run6, "53")
	far, near := asker(out.Do, time.Minute), asker(here, time.Minute)
	gw := d.Must(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
	check := func() {
		t.Helper()
		reach(t, "IPv4 led by the kernel", far, "192.0.2.1:5353", "192.0.2.2")
		reach(t, "IPv6 to IPv4", far, "[2001:db8::1]:5353", gw)
		reach(t, "IPv6 to IPv4, another address of the host", far, "[2001:db8::7]:5353", gw)
		reach(t, "::1 to IPv4", near, "[::1]:5353", gw)
		reach(t, "::1 alone to IPv4", near, "[::1]:5354", gw)
		reach(t, "IPv4's loopback", near, "127.0.0.1:5355", gw)
		reach(t, "IPv4 to IPv6", far, "192.0.2.1:5363", "any")
		reach(t, "IPv4's loopback to IPv6", near, "127.0.0.1:5363", "any")
		reach(t, "::1 to IPv6", near, "[::1]:5363", "any")
		reach(t, "IPv6 led by the kernel", far, "[2001:db8::1]:5363", "2001:db8::2")
	}
	check()
	short := asker(out.Do, 0)
	reach(t, "published on ::1 alone", short, "[2001:db8::1]:5354", "")
	reach(t, "published on 127.0.0.1 alone", short, "192.0.2.1:5355", "")
	d.Kill(t)
	reach(t, "without a daemon", far, "192.0.2.1:5353", "192.0.2.2")
	d.Up(t)
	check()
	d.Must(t, "rm", "-f", "four", "six")
	reach(t, "of a container that is gone", asker(here, 0), "[::1]:5353", "")
	for _, at := range []string{"[::1]:5400:53/sctp", "[2001:db8::1]:5400:53/sctp"} {
		if _, errs, code := d.Fief(t, "run", "--rm", "-p", at, "host", "true"); code != 125 || !strings.Contains(errs, "SCTP is led by the kernel alone") {
			t.Errorf("%s: exit %d, %s", at, code, errs)
		}
	}
	d.Must(t, "network", "rm", "six")
}
