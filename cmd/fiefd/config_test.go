package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fief/internal/words/fault"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fief.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A flag on the command line wins over the file, the file over the default.
func TestFlagOverFileOverDefault(t *testing.T) {
	file := write(t, `
data-root = "/from/file"
exec-root = "/run/file"
userns-remap = "default"
insecure-registries = ["registry.lan:5000"]
pool-size = 7
`)
	s, err := configure([]string{"--config-file", file, "--data-root", "/from/flag", "--pool-size=2"})
	if err != nil {
		t.Fatal(err)
	}
	if s.DataRoot != "/from/flag" || s.ExecRoot != "/run/file" || s.Remap != "default" || s.Pool != 2 || s.LogLevel != "info" {
		t.Errorf("%+v", s)
	}
	if !slices.Equal(s.Insecure, []string{"registry.lan:5000"}) || !slices.Equal(s.Hosts, []string{"unix:///run/file/docker.sock"}) {
		t.Errorf("%+v", s)
	}
}

func TestBadConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown key":     {[]string{"--config-file", write(t, "storage-driver = \"zfs\"\n")}, "storage-driver"},
		"wrong type":      {[]string{"--config-file", write(t, "pool-size = \"many\"\n")}, "pool-size"},
		"no toml":         {[]string{"--config-file", write(t, "{}")}, "fief.toml"},
		"no file":         {[]string{"--config-file", "/no/such/file"}, "/no/such/file"},
		"relative root":   {[]string{"--data-root", "data"}, "--data-root data"},
		"tcp":             {[]string{"-H", "tcp://0.0.0.0:2375"}, "only unix sockets"},
		"level":           {[]string{"--log-level", "loud"}, "loud"},
		"ulimit":          {[]string{"--default-ulimit", "nofile=9:3"}, "--default-ulimit"},
		"ulimit in file":  {[]string{"--config-file", write(t, "default-ulimits = [\"what=3\"]\n")}, "--default-ulimit what=3"},
		"exec option":     {[]string{"--exec-opt", "isolation=process"}, "there is no such option"},
		"cgroup driver":   {[]string{"--config-file", write(t, "exec-opts = [\"native.cgroupdriver=runc\"]\n")}, "there is no such driver"},
		"pool":            {[]string{"--pool-size", "1000"}, "--pool-size"},
		"own runtime":     {[]string{"--add-runtime", "fief=/bin/x"}, "there is a runtime of that name"},
		"same runtime":    {[]string{"--add-runtime", "a=/bin/x", "--add-runtime", "a=/bin/y"}, "there is a runtime of that name"},
		"runtime":         {[]string{"--add-runtime", "crun"}, "NAME=/PATH"},
		"default runtime": {[]string{"--default-runtime", "runc"}, "runc"},
		"argument":        {[]string{"run"}, "unexpected argument"},
		"unknown flag":    {[]string{"--storage-driver", "zfs"}, "unknown flag"},
	} {
		_, err := configure(c.args)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Anything may lie in fief.toml.
func FuzzConfiguration(f *testing.F) {
	f.Add("data-root = \"/x\"\n")
	f.Add("hosts = [\"unix:///x\", 1]\n")
	f.Add("[section]\npool-size = 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := configure([]string{"--config-file", write(t, text)})
		if err == nil && (!filepath.IsAbs(s.DataRoot) || len(s.Hosts) == 0) {
			t.Errorf("%q gives %+v", text, s)
		}
	})
}

// A socket that a killed daemon left is replaced, one that answers is not.
func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "docker.sock")
	l, err := listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := listen("unix", path); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second daemon: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	again, err := listen("unix", path)
	if err != nil {
		t.Fatalf("after a daemon that was killed: %v", err)
	}
	again.Close()
}
