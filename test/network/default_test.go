package network_test

import (
	"strings"
	"testing"
)

// TestBridgeIP: the default network has the address and the range that the daemon
// was told, and others after it was told others, but not under a container.
func TestBridgeIP(t *testing.T) {
	d := start(t, "--bip", "10.44.0.9/24", "--fixed-cidr", "10.44.0.128/25")
	a := run(t, d, "aa")
	if got := ip(t, d, "aa", "bridge"); got != "10.44.0.128" {
		t.Errorf("it has %s", got)
	}
	if got := d.Must(t, "exec", "aa", "ip", "route", "show", "default"); !strings.Contains(got, "via 10.44.0.9 ") {
		t.Errorf("it goes by %s", got)
	}
	d.Stop(t)
	d.Args("--pool-size", "0", "--fixed-cidr", "10.45.0.0/24")
	d.Up(t)
	run(t, d, "bb")
	if got := ip(t, d, "bb", "bridge"); got != "10.44.0.129" {
		t.Errorf("beside one that runs another has %s", got)
	}
	reach(t, "each other", a.Ask, ip(t, d, "bb", "bridge")+":80", ip(t, d, "aa", "bridge"))
	d.Must(t, "rm", "-f", "aa", "bb")
	d.Stop(t)
	d.Up(t)
	run(t, d, "cc")
	if got := ip(t, d, "cc", "bridge"); got != "10.45.0.2" {
		t.Errorf("then it has %s", got)
	}
	d.Must(t, "rm", "-f", "cc")
}

// TestLinkEnv: a container is told by its environment where those are that it is
// linked with, and what they were told, unless it says so itself.
func TestLinkEnv(t *testing.T) {
	d := start(t)
	d.Must(t, "run", "-d", "--name", "db", "--expose", "5432", "--expose", "53/udp", "--expose", "53", "-e", "USER=me", "-e", "MODE=x", "host", "sleep", "1000")
	at := ip(t, d, "db", "bridge")
	linked := []string{"--name", "app", "--link", "db:the-db", "-e", "THE_DB_ENV_MODE=mine", "host"}
	linkEnv(t, at, d.Must(t, append(append([]string{"run", "--rm"}, linked...), "env")...))
	d.Must(t, append(append([]string{"run", "-d"}, linked...), "sleep", "1000")...)
	linkEnv(t, at, d.Must(t, "exec", "app", "env"))
	if got := d.Must(t, "exec", "-e", "THE_DB_ENV_USER=you", "app", "printenv", "THE_DB_ENV_USER"); got != "you" {
		t.Errorf("the session's own variable: %s", got)
	}
	d.Must(t, "rm", "-f", "app", "db")
}

// linkEnv checks the environment of a container that is linked with another at an
// address, or of a session in it.
func linkEnv(t *testing.T, at, env string) {
	t.Helper()
	env = "\n" + env + "\n"
	for _, want := range []string{
		"THE_DB_NAME=/app/the-db", "THE_DB_PORT=tcp://" + at + ":53", "THE_DB_PORT_53_TCP=tcp://" + at + ":53", "THE_DB_PORT_53_UDP=udp://" + at + ":53",
		"THE_DB_PORT_5432_TCP=tcp://" + at + ":5432", "THE_DB_PORT_5432_TCP_ADDR=" + at, "THE_DB_PORT_5432_TCP_PORT=5432", "THE_DB_PORT_5432_TCP_PROTO=tcp",
		"THE_DB_ENV_USER=me", "THE_DB_ENV_MODE=mine",
	} {
		if strings.Count(env, "\n"+want+"\n") != 1 {
			t.Errorf("no %s in%s", want, env)
		}
	}
	if strings.Contains(env, "THE_DB_ENV_PATH") || strings.Contains(env, "THE_DB_ENV_MODE=x") {
		t.Errorf("what is the other's own:%s", env)
	}
}
