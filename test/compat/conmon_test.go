package compat

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/launch/launchtest"
)

// crio opens a place in which conmon is called with the arguments that CRI-O calls
// it with (internal/oci/runtime_oci.go, CreateContainer and ExecSyncContainer), as
// CRI-O itself is not to be had here.
func crio(t *testing.T, runtime string) session {
	t.Helper()
	monitor, err := exec.LookPath("conmon")
	if err != nil {
		t.Skip("tool: no conmon")
	}
	dir, group := place(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	rootfs(t, filepath.Join(dir, "bundle/rootfs"))
	for _, d := range []string{"exits", "attach", "persist", "log"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, terminal := range map[string]bool{"config.json": false, "terminal.json": true} {
		s := launchtest.Spec("sh", "-c", "trap 'exit 9' TERM; echo started; tty; while :; do sleep 0.1; done")
		s.Root = &specs.Root{Path: "rootfs"}
		s.Process.Terminal = terminal
		s.Linux.CgroupsPath = "/" + group + "/ctr"
		save(t, filepath.Join(dir, "bundle", name), s)
	}
	process := launchtest.Spec("sh", "-c", "tty; echo out; echo err >&2; exit 5").Process
	save(t, filepath.Join(dir, "process.json"), process)
	process.Terminal = true
	save(t, filepath.Join(dir, "process-tty.json"), process)
	functions := write(t, filepath.Join(dir, "functions"), `R="`+runtime+` --root=$PWD/state"
# The pipes are descriptors 3, by which conmon tells, and 4, by which it is told to go.
pipes() { rm -f sync; "$@" 3>sync 4< <(printf '\0'); }
export _OCI_SYNCPIPE=3 _OCI_STARTPIPE=4
common="--socket-dir-path $PWD/attach --log-level info -r `+runtime+` --runtime-arg --root=$PWD/state"
create() { (cd bundle; pipes `+monitor+` -b $PWD -c ctr --exit-dir $PWD/../exits -l $PWD/../log/ctr -n name -P $PWD/../conmon.pid -p $PWD/pidfile \
  --persist-dir $PWD/../persist --socket-dir-path $PWD/../attach --log-level info -r `+runtime+` --runtime-arg --root=$PWD/../state --syslog -u ctr --log-size-max 100000 "$@"
  for i in $(seq 600); do grep -q } sync && break; sleep 0.1; done; cat sync); }
execute() { rm -f log/exec; pipes `+monitor+` -c ctr -n name -p $PWD/exec.pid -e -l $PWD/log/exec $common --sync "$@"
  for i in $(seq 600); do grep -q exit_code sync && break; sleep 0.1; done; cat sync log/exec; }
`)
	s := session{dir, append(os.Environ(), "BASH_ENV="+functions)}
	t.Cleanup(func() { s.do("$R delete --force ctr") })
	return s
}

func save(t *testing.T, name string, v any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	write(t, name, string(data))
}

func TestAsCRIO(t *testing.T) {
	compare(t, crio, []step{
		{line: "create", want: `"pid": *[1-9]`},
		{line: "$R state ctr", want: `"status": "created"`},
		{line: "$R start ctr"},
		{line: "cat log/ctr", want: "stdout F started\n.* not a tty", repeat: true},
		{line: "$R --log-format=json state ctr", want: `"pid": [1-9].*"status": "running"`},
		{line: "execute --exec-process-spec $PWD/process.json", want: `"exit_code": *5.*stdout F not a tty.*stdout F out\n.*stderr F err`},
		{line: "execute -t --exec-process-spec $PWD/process-tty.json", want: `"exit_code": *5.*/dev/pts/.*out.*err`},
		{line: "execute -T 1 --exec-process-spec <(sed 's/tty; echo out/sleep 1000/' process.json)", want: `"exit_code": *-1`},
		{line: `echo '{"pids":{"limit":77}}' | $R update --resources - ctr && $R events --stats ctr`, want: `"limit":77`},
		{line: "$R pause ctr && $R state ctr", want: `"status": "paused"`},
		{line: "$R resume ctr && $R state ctr", want: `"status": "running"`},
		{line: "$R kill ctr TERM"},
		{line: "cat exits/ctr", want: "^9$", repeat: true},
		{line: "$R kill ctr KILL", want: "container not running", code: 1},
		{line: "$R kill -a ctr 9; $R delete --force ctr && $R delete --force ctr && $R state ctr", want: "does not exist", code: 1},
		{line: "mv bundle/terminal.json bundle/config.json; rm exits/ctr log/ctr; create -t", want: `"pid": *[1-9]`},
		{line: "$R start ctr"},
		{line: "cat log/ctr", want: "started.*/dev/pts/0", repeat: true},
		{line: "$R kill ctr 9"},
		{line: "cat exits/ctr", want: "^137$", repeat: true},
		{line: "$R delete --force ctr"},
		{line: "sed -i 's/\"sh\",\"-c\"/\"nosuch\",\"-c\"/' bundle/config.json; create -t", want: `"pid": *-1.*not found`},
	})
}
