package remap

import (
	"strings"
	"testing"

	"fief/internal/testenv"
)

// TestNames gives containers the ranges of names, in file order (story 6); the
// user's name is for uids and the group's for gids, and one stands for both.
func TestNames(t *testing.T) {
	d := testenv.StartWrapped(t, []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", twoUsers, t.TempDir()})
	d.Busybox(t)
	const tester = "0 700000 1000; 1000 200000 64536; 0 300000 65536"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--subuidname", "tester"}, tester},
		{[]string{"--subgidname", "tester"}, tester},
		{[]string{"--subuidname", "4242"}, tester},
		{[]string{"--subuidname", "tester", "--subgidname", "other"}, "0 700000 1000; 1000 200000 64536; 0 1400000 65536"},
		{[]string{"--subuidname", "other", "--subgidname", "tester"}, "0 1400000 65536; 0 300000 65536"},
		{[]string{"--subuidname", "other", "--uidmap", "70000:5000:10"}, "0 1400000 65536; 70000 5000 10; 0 1400000 65536; 70000 5000 10"},
	} {
		if got := maps(t, d, c.args...); got != c.want {
			t.Errorf("%s: %s, want %s", strings.Join(c.args, " "), got, c.want)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--subuidname", "bare"}, `no subuid ranges found for user "bare"`},
		{[]string{"--subuidname", "nobody-here"}, "nobody-here"},
		{[]string{"--subuidname", "tester", "--subgidname", "bare"}, `"bare"`},
		{[]string{"--subuidname", "other", "--uidmap", "100:5000:10"}, "100:5000:10"},
		{[]string{"--subuidname", "tester", "--userns", "auto"}, "mutually exclusive"},
	} {
		args := append(append([]string{"run", "--rm"}, c.args...), "busybox", "true")
		if _, errs, code := d.Fief(t, args...); code == 0 || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d\n%swant %q", strings.Join(c.args, " "), code, errs, c.want)
		}
	}
}
