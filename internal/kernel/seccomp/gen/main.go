// Gen writes the system call number tables of package seccomp from the
// zsysnum files of golang.org/x/sys/unix, which are made from kernel headers.
// Run it by `go generate` in the package's directory after an update of
// golang.org/x/sys.
package main

import (
	"bytes"
	"cmp"
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// table is one output: the numbers of one system call ABI.
type table struct {
	goarch string // whose zsysnum file is read
	file   string // written
	name   string // of the constant
	about  string
	fix    func(map[string]uint32)
}

func main() {
	log.SetFlags(0)
	tables := []table{
		{"amd64", "table_x8664.go", "tableX8664", "x86_64", nil},
		{"amd64", "table_x32.go", "tableX32", "x32, without the x32 bit", toX32},
		{"386", "table_i386.go", "tableI386", "32-bit x86", nil},
		{"arm64", "table_aarch64.go", "tableAArch64", "arm64", dropArtefacts},
		{"arm", "table_armeabi.go", "tableARM", "32-bit ARM (EABI)", toARM},
	}
	dir := sources()
	known := map[string]bool{}
	for _, t := range tables {
		numbers := read(filepath.Join(dir, "zsysnum_linux_"+t.goarch+".go"))
		if t.fix != nil {
			t.fix(numbers)
		}
		for name := range numbers {
			known[name] = true
		}
		write(t.file, t.name, "maps the names of the system calls of "+t.about+"\n// to their numbers: a line each, sorted by name.", lines(numbers))
	}
	write("table_other.go", "tableOther", "lists the names of system calls that only other\n// architectures have: a line each, sorted.", others(dir, known))
}

// sources is the directory of the unix package of the module's golang.org/x/sys.
func sources() string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		log.Fatalf("cannot find golang.org/x/sys: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "unix")
}

func read(path string) map[string]uint32 {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	numbers := map[string]uint32{}
	for _, m := range regexp.MustCompile(`(?m)^\s*SYS_(\w+)\s*=\s*(\d+)`).FindAllSubmatch(text, -1) {
		n, err := strconv.ParseUint(string(m[2]), 10, 32)
		if err != nil {
			log.Fatalf("%s: %v", path, err)
		}
		numbers[strings.ToLower(string(m[1]))] = uint32(n)
	}
	return numbers
}

// toX32 turns the x86_64 numbers into those of x32: the same but for calls
// whose arguments differ, which have numbers from 512, and for calls x32 never
// had. Both sets are frozen: arch/x86/entry/syscalls/syscall_64.tbl says that
// no number from 512 to 547 may be added.
func toX32(numbers map[string]uint32) {
	own := strings.Fields(`rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg
		execve ptrace rt_sigpending rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create
		mq_notify kexec_load waitid set_robust_list get_robust_list vmsplice move_pages preadv
		pwritev rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv process_vm_writev setsockopt
		getsockopt io_setup io_submit execveat preadv2 pwritev2`)
	for i, name := range own {
		numbers[name] = 512 + uint32(i)
	}
	for _, name := range strings.Fields(`uselib _sysctl create_module get_kernel_syms query_module
		nfsservctl set_thread_area get_thread_area epoll_ctl_old epoll_wait_old vserver
		map_shadow_stack uretprobe uprobe`) {
		delete(numbers, name)
	}
}

// toARM adds the calls private to ARM (arch/arm/include/uapi/asm/unistd.h) and
// the generic name of arm_sync_file_range.
func toARM(numbers map[string]uint32) {
	dropArtefacts(numbers)
	for i, name := range strings.Fields("breakpoint cacheflush usr26 usr32 set_tls get_tls") {
		numbers[name] = 0x0f0001 + uint32(i)
	}
	numbers["sync_file_range2"] = numbers["arm_sync_file_range"]
}

// dropArtefacts removes macros of the headers that are no calls.
func dropArtefacts(numbers map[string]uint32) {
	delete(numbers, "syscall_mask")
	delete(numbers, "arch_specific_syscall")
}

func lines(numbers map[string]uint32) string {
	var b strings.Builder
	for _, name := range slices.SortedFunc(maps.Keys(numbers), cmp.Compare[string]) {
		fmt.Fprintf(&b, "%s %d\n", name, numbers[name])
	}
	return b.String()
}

func others(dir string, known map[string]bool) string {
	// Private to architectures whose zsysnum files lack them.
	names := map[string]bool{"spu_create": true, "spu_run": true, "swapcontext": true, "riscv_flush_icache": true, "riscv_hwprobe": true}
	paths, err := filepath.Glob(filepath.Join(dir, "zsysnum_linux_*.go"))
	if err != nil || len(paths) < 10 {
		log.Fatalf("%s: %d zsysnum files, %v", dir, len(paths), err)
	}
	for _, path := range paths {
		for name := range read(path) {
			names[name] = true
		}
	}
	maps.DeleteFunc(names, func(name string, _ bool) bool {
		return known[name] || name == "syscall_mask" || name == "arch_specific_syscall"
	})
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(&b, "%s 0\n", name)
	}
	return b.String()
}

func write(file, name, about, body string) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated by seccomp/gen from golang.org/x/sys/unix; DO NOT EDIT.\n\npackage seccomp\n\n// %s %s\nconst %s = `\n%s`\n", name, about, name, body)
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}
