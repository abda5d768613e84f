package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// streamed is how the bench starts itself as one end of a stream:
// "tcp-receive ADDRESS", or "tcp-send ADDRESS SECONDS", which prints bits a second
// and the seconds of processor that both ends have used for a gigabyte.
func streamed(args []string) bool {
	switch {
	case len(args) == 2 && args[0] == "tcp-receive":
		l, err := net.Listen("tcp4", args[1])
		check(err)
		for {
			c, err := l.Accept()
			check(err)
			go drain(c)
		}
	case len(args) == 3 && args[0] == "tcp-send":
		seconds, err := strconv.ParseFloat(args[2], 64)
		check(err)
		c, err := net.DialTimeout("tcp4", args[1], 10*time.Second)
		check(err)
		fmt.Println(fill(c.(*net.TCPConn), time.Duration(seconds*float64(time.Second))))
		return true
	}
	return false
}

const piece = 128 << 10

// drain reads a stream to its end and says how much it was, and what it cost.
func drain(c net.Conn) {
	defer c.Close()
	idle := processor()
	buf, n := make([]byte, piece), 0
	for {
		m, err := c.Read(buf)
		n += m
		if err != nil {
			break
		}
	}
	fmt.Fprintln(c, n, processor()-idle)
}

// processor is the seconds that this process has used (getrusage(2)).
func processor() float64 {
	var u syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// fill writes for a time and returns the bits a second that the other end has
// received, and the cost of a gigabyte.
func fill(c *net.TCPConn, long time.Duration) (bits, cost float64) {
	defer c.Close()
	idle := processor()
	buf := make([]byte, piece)
	begun := time.Now()
	for time.Since(begun) < long {
		_, err := c.Write(buf)
		check(err)
	}
	check(c.CloseWrite())
	line, err := bufio.NewReader(c).ReadString('\n')
	took := time.Since(begun)
	if err != io.EOF {
		check(err)
	}
	var n, its float64
	_, err = fmt.Sscan(line, &n, &its)
	check(err)
	return 8 * n / took.Seconds(), (processor() - idle + its) / n * 1e9
}

// path is a way between two ends: a receiver that runs, and a command that sends.
type path struct {
	name string
	send func() *exec.Cmd
	runs []float64 // Gbit/s
	cost []float64 // seconds of processor for a gigabyte
	end  func()
}

func median(list []float64) float64 {
	slices.Sort(list)
	if len(list) == 0 {
		return 0
	}
	return list[len(list)/2]
}

const (
	pathFief   = "between containers, on a network of a user's"
	pathOwn    = "between containers, on the default network"
	pathBridge = "between namespaces, on a bridge"
	pathVeth   = "between namespaces, a pair of devices"
	streamLong = "1"
	streamPort = ":5201"
)

// throughput sends streams over each path in turn, in one run and on one machine:
// only their ratios say something.
func (s *stage) throughput(n int) (out []verdict, rows []map[string]any) {
	exe, err := os.Executable()
	check(err)
	var all []*path
	defer func() {
		for _, p := range all {
			p.end()
		}
	}()
	all = append(all, s.containersPath(exe, pathFief, "streams"), s.containersPath(exe, pathOwn, "bridge"))
	all = append(all, s.spacesPath(exe, pathBridge, "10.201.0", true), s.spacesPath(exe, pathVeth, "10.202.0", false))
	for i := range n + 1 {
		for _, p := range all {
			endIfAsked()
			b, err := p.send().CombinedOutput()
			if err != nil {
				fatal(fmt.Errorf("%s: %w: %s", p.name, err, b))
			}
			var bits, cost float64
			_, err = fmt.Sscan(string(b), &bits, &cost)
			check(err)
			if i > 0 { // the first warms up
				p.runs, p.cost = append(p.runs, bits/1e9), append(p.cost, cost)
			}
		}
	}
	for _, p := range all {
		rows = append(rows, map[string]any{"path": p.name, "gbit_per_s": median(p.runs), "cpu_s_per_gb": median(p.cost), "runs": p.runs, "costs": p.cost})
	}
	for _, own := range all[:2] {
		for _, beside := range all[2:] {
			ratio := median(own.runs) / median(beside.runs)
			v := verdict{What: "TCP " + own.name, Got: fmt.Sprintf("%.1f Gbit/s", median(own.runs)),
				Beside: fmt.Sprintf("%s %.1f Gbit/s", beside.name, median(beside.runs)), Ratio: fmt.Sprintf("%.3f", ratio)}
			if beside.name == pathVeth {
				v.Limit, v.Holds = "≥ 0.97 ×", holds(ratio >= 0.97)
			}
			out = append(out, v, verdict{What: "its processor for a gigabyte, both ends", Got: fmt.Sprintf("%.3f s", median(own.cost)),
				Beside: fmt.Sprintf("%.3f s", median(beside.cost)), Ratio: fmt.Sprintf("%.3f", median(own.cost)/median(beside.cost))})
		}
	}
	return out, rows
}

// containersPath is two containers on a network.
func (s *stage) containersPath(exe, name, network string) *path {
	if network != "bridge" {
		s.must(s.fief("network", "create", network))
	}
	sender, receiver := network+"-sender", network+"-receiver"
	for _, c := range [][]string{{receiver, "/bench", "tcp-receive", streamPort}, {sender, "sleep", "100000"}} {
		s.must(s.fief(append([]string{"run", "-d", "--name", c[0], "--network", network, "-v", exe + ":/bench:ro", "busybox"}, c[1:]...)...))
	}
	ip, err := s.fief("inspect", "-f", "{{.NetworkSettings.Networks."+network+".IPAddress}}", receiver).Output()
	check(err)
	return &path{name: name,
		send: func() *exec.Cmd {
			return s.fief("exec", sender, "/bench", "tcp-send", strings.TrimSpace(string(ip))+streamPort, streamLong)
		},
		end: func() {
			s.fief("rm", "-f", receiver, sender).Run()
			if network != "bridge" {
				s.fief("network", "rm", network).Run()
			}
		}}
}

// spacesPath is two network namespaces that ip(8) has connected, by a bridge or
// directly.
func (s *stage) spacesPath(exe, name, subnet string, bridged bool) *path {
	var holders []*exec.Cmd
	for range 2 {
		c := exec.Command("unshare", "--net", "sleep", "100000")
		check(c.Start())
		holders = append(holders, c)
		own, err := os.Readlink("/proc/self/ns/net")
		check(err)
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid)); err == nil && its != own {
				break
			}
			if time.Now().After(limit) {
				fatal(fmt.Errorf("unshare makes no network namespace"))
			}
		}
	}
	ip := func(args string) { s.must(exec.Command("ip", strings.Fields(args)...)) }
	inside := func(i int, args ...string) *exec.Cmd {
		return exec.Command("nsenter", append([]string{"-n", "-t", strconv.Itoa(holders[i].Process.Pid)}, args...)...)
	}
	if bridged {
		ip("link add plain0 type bridge")
		ip("link set plain0 up")
		for i, h := range holders {
			ip(fmt.Sprintf("link add plain0p%d master plain0 type veth peer name eth0 netns %d", i, h.Process.Pid))
			ip(fmt.Sprintf("link set plain0p%d up", i))
		}
	} else {
		s.must(inside(0, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(holders[1].Process.Pid)))
	}
	for i := range holders {
		s.must(inside(i, "ip", "address", "add", fmt.Sprintf("%s.%d/24", subnet, i+1), "dev", "eth0"))
		s.must(inside(i, "ip", "link", "set", "eth0", "up"))
	}
	receiver := inside(1, exe, "tcp-receive", streamPort)
	check(receiver.Start())
	return &path{name: name,
		send: func() *exec.Cmd { return inside(0, exe, "tcp-send", subnet+".2"+streamPort, streamLong) },
		end: func() {
			for _, c := range append(holders, receiver) {
				c.Process.Kill()
				c.Wait()
			}
			if bridged {
				exec.Command("ip", "link", "delete", "plain0").Run()
			}
		}}
}
