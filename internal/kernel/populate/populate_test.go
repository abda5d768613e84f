package populate

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain runs this program as one that fills 1 MiB of heap and says how many
// page faults that took.
func TestMain(m *testing.M) {
	switch os.Getenv("FIEF_POPULATE") {
	case "":
		os.Exit(m.Run())
	case "yes":
		Heap()
	}
	before := faults()
	var keep [256]*[4 << 10]byte
	for i := range keep {
		keep[i] = new([4 << 10]byte)
		keep[i][0] = 1
	}
	os.Stdout.WriteString(strconv.Itoa(faults() - before))
	os.Exit(0)
}

func faults() int {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return int(u.Minflt)
}

// TestHeap: what is filled after Heap is a huge page, wherever the heap begins,
// which is somewhere else in each process.
func TestHeap(t *testing.T) {
	if mode, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err != nil || strings.Contains(string(mode), "[never]") {
		t.Skip("kernel: no huge pages")
	}
	count := func(populate string) int {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "FIEF_POPULATE="+populate)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(string(out))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const times = 8
	with, without := 0, 0
	for range times {
		with += count("yes")
		without += count("no")
	}
	if without < times*200 {
		t.Fatalf("%d page faults for %d times 256 pages without it: this measures nothing", without, times)
	}
	if with > without/3 {
		t.Errorf("%d page faults with it, %d without, for %d times 1 MiB", with, without, times)
	}
}
