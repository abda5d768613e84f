package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fief/internal/testenv"
)

// fief without a daemon starts one where a daemon is by default, and says so in
// one line; the next command finds it.
func TestFiefStartsADaemon(t *testing.T) {
	testenv.NeedRoot(t)
	fief := filepath.Join(testenv.Bin(t), "fief")
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", `set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
"$0" run --rm --network none host id -u
"$0" ps -q
`, fief)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, errs, code := testenv.Output(t, cmd)
	started := regexp.MustCompile(`(?m)^fief: started fiefd \(pid (\d+)\), log in \S+$`).FindAllStringSubmatch(errs, -1)
	if code != 0 || out != "0\n" || len(started) != 1 || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	for _, s := range started {
		pid, err := strconv.Atoi(s[1])
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Errorf("the daemon that was started is not there: %v", err)
		}
		for end := time.Now().Add(time.Minute); alive(s[1]) && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
	}
}
