package spec

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"fief/internal/words/record"
)

// limitsEnv makes the test binary print its HostLimits.
const limitsEnv = "FIEF_TEST_LIMITS"

func TestMain(m *testing.M) {
	if os.Getenv(limitsEnv) != "" {
		limits, err := HostLimits()
		fmt.Println(limits, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestHostMasks(t *testing.T) {
	paths, err := HostMasks()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestHostLimits(t *testing.T) {
	cmd := exec.Command("sh", "-c", "ulimit -Sn 777; ulimit -Hn 888; ulimit -c 0; exec /proc/"+fmt.Sprint(os.Getpid())+"/exe")
	cmd.Env = append(os.Environ(), limitsEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"{nofile 777 888}", "{core 0 0}", "<nil>"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
	limits, err := HostLimits()
	if err != nil {
		t.Fatal(err)
	}
	c, f := plain()
	f.Rlimits = limits
	if s, err := Build(c, f); err != nil || len(s.Process.Rlimits) != len(limits) {
		t.Errorf("%v of %v, %v", s, limits, err)
	}
	if len(limits) != 16 || limits[0] == (record.Ulimit{}) {
		t.Errorf("%v", limits)
	}
}
