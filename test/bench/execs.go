package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// execs are bare OCI runtimes that start another process in a running container,
// as `fief exec` does in its own. Each has its container until the stage closes.
func (s *stage) execs() (list []*contestant) {
	for _, name := range []string{s.bin + "/fief-oci", "crun", "runc"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		short := filepath.Base(name)
		base := []string{"--root", s.work + "/oci-exec-" + short}
		id := fmt.Sprintf("bench-%d-exec-%s", os.Getpid(), short)
		dir := s.sleeping("exec-" + short)
		start := exec.Command(path, append(append([]string{}, base...), "run", "--detach", "--bundle", dir, id)...)
		if err := start.Run(); err != nil { // its output is the container's, and stays open
			fmt.Fprintf(os.Stderr, "bench: %s exec is left out, it cannot run here: %v\n", short, err)
			continue
		}
		s.running = append(s.running, func() {
			exec.Command(path, append(append([]string{}, base...), "delete", "--force", id)...).Run()
		})
		list = append(list, &contestant{Group: "exec", Name: short + " exec (bundle, user namespace)",
			make: command(path, append(append([]string{}, base...), "exec", id, "/bin/true")...)})
	}
	return list
}

// sleeping is a bundle with a user namespace whose process goes on.
func (s *stage) sleeping(name string) (dir string) {
	dir = s.bundle("crun", name, true)
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	check(err)
	var c map[string]any
	check(json.Unmarshal(b, &c))
	c["process"].(map[string]any)["args"] = []string{"/bin/sleep", "100000"}
	b, err = json.Marshal(c)
	check(err)
	check(os.WriteFile(path, b, 0o600))
	return dir
}
