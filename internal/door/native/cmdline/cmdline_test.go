package cmdline_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fief/internal/door/native/cmdline"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

func run(t *testing.T, words ...string) cmdline.Run {
	t.Helper()
	r, err := cmdline.ParseRun(append(words, "img", "cmd", "-x"), client(t))
	if err != nil {
		t.Fatalf("%q: %v", words, err)
	}
	if r.Ask.Image != "img" || !slices.Equal(r.Ask.Cmd, []string{"cmd", "-x"}) {
		t.Fatalf("%q: image %q, command %q", words, r.Ask.Image, r.Ask.Cmd)
	}
	return r
}

func client(t *testing.T) cmdline.Client {
	dir := t.TempDir()
	err := os.WriteFile(filepath.Join(dir, "file"), []byte("# c\n\n  A=1\nHOME\nNOWHERE\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return cmdline.Client{Dir: "/cwd", ReadFile: func(n string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, n)) },
		Lookup: func(n string) (string, bool) { return "/h", n == "HOME" }}
}

func TestStreams(t *testing.T) {
	for words, want := range map[string]cmdline.Attach{
		"":              {Stdout: true, Stderr: true},
		"-i":            {Stdin: true, Stdout: true, Stderr: true},
		"-d":            {},
		"-a stdout":     {Stdout: true},
		"-a stdin -ai ": {},
	} {
		r, err := cmdline.ParseRun(append(strings.Fields(words), "img"), cmdline.Client{})
		if words == "-a stdin -ai " {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", words, err)
			}
			continue
		}
		if err != nil || r.Attach.Stdin != want.Stdin || r.Attach.Stdout != want.Stdout || r.Attach.Stderr != want.Stderr {
			t.Errorf("%q: %+v, %v", words, r.Attach, err)
		}
	}
	keys := run(t, "--detach-keys", "ctrl-p,q,ctrl-[").Attach.DetachKeys
	if string(keys) != "\x10q\x1b" {
		t.Errorf("detach keys %q", keys)
	}
}

func TestEnvironment(t *testing.T) {
	r := run(t, "--env-file", "file", "-e", "HOME", "-e", "B=x=y", "-eC=")
	if want := []string{"A=1", "HOME=/h", "HOME=/h", "B=x=y", "C="}; !slices.Equal(r.Ask.Env, want) {
		t.Errorf("got %q", r.Ask.Env)
	}
}

func TestMounts(t *testing.T) {
	r := run(t, "-v", "/a:/b:ro,rslave", "-v", "./rel:/c", "-v", "vol:/d", "-v", "/e", "--mount", "type=bind,src=x,dst=/f,readonly,bind-recursive=disabled",
		"--mount", "type=tmpfs,target=/g,tmpfs-size=1m,tmpfs-mode=700", "--tmpfs", "/h:size=2k,exec,mode=1770")
	want := []ask.Mount{
		{Kind: ask.Bind, Source: "/a", Target: "/b", ReadOnly: true, Recursive: true, Propagation: "rslave", CreateSrc: true},
		{Kind: ask.Bind, Source: "/cwd/rel", Target: "/c", Recursive: true, CreateSrc: true},
		{Kind: ask.Volume, Source: "vol", Target: "/d", Recursive: true, Short: true},
		{Kind: ask.Volume, Target: "/e", Recursive: true},
		{Kind: ask.Bind, Source: "/cwd/x", Target: "/f", ReadOnly: true},
		{Kind: ask.Tmpfs, Target: "/g", TmpfsSize: 1 << 20, TmpfsMode: 0o700, Recursive: true},
		{Kind: ask.Tmpfs, Target: "/h", TmpfsSize: 2 << 10, TmpfsMode: 0o1770, TmpfsExec: true},
	}
	for i, m := range r.Ask.Mounts {
		if !reflect.DeepEqual(m, want[i]) {
			t.Errorf("mount %d:\n got %+v\nwant %+v", i, m, want[i])
		}
	}
}

// Every spelling of a mount that Docker or Podman has, and what is wrong with others.
func TestMountSpellings(t *testing.T) {
	bind := func(m ask.Mount) ask.Mount {
		m.Kind, m.Source, m.Target = ask.Bind, "/a", "/b"
		m.Recursive = !m.Recursive // true unless said otherwise
		return m
	}
	volume := func(m ask.Mount) ask.Mount {
		m.Kind, m.Source, m.Target, m.Recursive = ask.Volume, "vol", "/b", true
		return m
	}
	for words, want := range map[string]ask.Mount{
		"type=bind,src=/a,dst=/b":                                           bind(ask.Mount{}),
		"TYPE=bind,SRC=/a,DST=/b,ReadOnly":                                  bind(ask.Mount{ReadOnly: true}),
		`type=bind,"source=/a","destination=/b",rw=false`:                   bind(ask.Mount{ReadOnly: true}),
		"type=bind,src=/a,dst=/b,z,exec,suid,dev,consistency=cached":        bind(ask.Mount{}),
		"type=bind,src=/a,dst=/b,Z,relabel=private":                         bind(ask.Mount{}),
		"type=bind,src=/a,dst=/b,nodev,noexec,nosuid":                       bind(ask.Mount{NoDev: true, NoExec: true, NoSuid: true}),
		"type=bind,src=/a,dst=/b,rslave,bind-nonrecursive=true":             bind(ask.Mount{Propagation: "rslave", Recursive: true}),
		"type=bind,src=/a,dst=/b,bind-propagation=runbindable,U=true":       bind(ask.Mount{Propagation: "runbindable", Chown: true}),
		"type=bind,src=/a,dst=/b,ro,bind-recursive=writable":                bind(ask.Mount{ReadOnly: true, ReadOnlyTop: true}),
		"type=volume,src=vol,dst=/b,subpath=x/y":                            volume(ask.Mount{Subpath: "x/y"}),
		"src=vol,dst=/b,volume-nocopy,volume-subpath=x":                     volume(ask.Mount{Subpath: "x", NoCopy: true}),
		`src=vol,dst=/b,volume-opt=type=tmpfs,"volume-opt=o=size=1m,uid=9"`: volume(ask.Mount{Options: map[string]string{"type": "tmpfs", "o": "size=1m,uid=9"}}),
		"src=vol,dst=/b,volume-label=a=b,volume-label=c,volume-driver=x":    volume(ask.Mount{Labels: map[string]string{"a": "b", "c": ""}, Driver: "x"}),
		"type=image,src=img,dst=/b,subpath=etc":                             {Kind: ask.Image, Source: "img", Target: "/b", Subpath: "etc", Recursive: true},
		"type=image,src=img,dst=/b,rw=false":                                {Kind: ask.Image, Source: "img", Target: "/b", ReadOnly: true, Recursive: true},
		"type=tmpfs,dst=/b,tmpfs-mode=0700,tmpfs-size=1m,noatime,exec":      {Kind: ask.Tmpfs, Target: "/b", TmpfsMode: 0o700, TmpfsSize: 1 << 20, TmpfsOptions: []string{"noatime"}, TmpfsExec: true, Recursive: true},
	} {
		if got := run(t, "--mount", words).Ask.Mounts[0]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", words, got, want)
		}
	}
	const at = "type=bind,src=/a,dst=/b,"
	for words, want := range map[string]string{
		at + "foo":                                 "invalid field 'foo' must be a key=value pair",
		at + "foo=bar":                             "unexpected key 'foo' in 'foo=bar'",
		at + "src=/c":                              "cannot pass 'src' option more than once",
		at + "target=/c":                           "cannot pass 'target' option more than once",
		at + "ro,rw":                               "cannot pass 'rw' option more than once",
		at + "ro=perhaps":                          "invalid value for ro: perhaps",
		at + "noexec,exec":                         "invalid field 'exec'",
		at + "volume-nocopy":                       "cannot mix 'volume-*' options with mount type 'bind'",
		at + "tmpfs-size=1":                        "cannot mix 'tmpfs-*' options with mount type 'bind'",
		at + "subpath=x":                           "cannot set option 'subpath' on mount type 'bind'",
		at + "relabel=x":                           "relabel mount option must be 'private' or 'shared'",
		at + "bind-propagation=x":                  "invalid propagation: x",
		at + "bind-recursive=x":                    `must be "enabled", "disabled", "writable", or "readonly"`,
		at + "bind-recursive=readonly":             "requires 'readonly'",
		at + `"ro`:                                 `extraneous or missing " in quoted-field`,
		"dst=/b,volume-subpath=x":                  "must not set Subpath when using anonymous volumes",
		"src=vol,dst=/b,volume-subpath=/x":         "must be a relative path within the volume",
		"src=vol,dst=/b,rslave":                    "invalid field 'rslave'",
		"src=vol,dst=/b,bind-propagation=rslave":   "cannot mix 'bind-*' options with mount type 'volume'",
		"type=image,src=img,dst=/b,rw":             "an image's files cannot be written",
		"type=image,src=img,dst=/b,readwrite=true": "an image's files cannot be written",
		"type=tmpfs,dst=/b,tmpfs-size=zz":          "invalid value for tmpfs-size: zz",
		"type=tmpfs,dst=/b,tmpfs-mode=9":           "invalid value for tmpfs-mode: 9",
		"type=tmpfs,dst=/b,rslave":                 "invalid field 'rslave'",
		"type=glob,src=/a,dst=/b":                  `mount type "glob" is not one of`,
	} {
		_, err := cmdline.ParseRun([]string{"--mount", words, "img"}, client(t))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", words, err)
		}
	}
}

// The words of --tmpfs, Docker's and Podman's.
func TestTmpfsWords(t *testing.T) {
	want := ask.Mount{Kind: ask.Tmpfs, Target: "/t", TmpfsMode: 0o1770, TmpfsOptions: []string{"size=10%", "noatime", "gid=5"}}
	if got := run(t, "--tmpfs", "/t:rw,nosuid,nodev,noexec,size=10%,noatime,notmpcopyup,gid=5,mode=1770").Ask.Mounts[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	for word, why := range map[string]string{
		"suid": "nosuid and nodev always hold", "dev": "nosuid and nodev always hold", "tmpcopyup": "use a volume", "odd": `invalid tmpfs option "odd"`,
		"size=": `invalid tmpfs option "size="`, "size=x%": "size=x%", "mode=9": "mode=9", "uid=1k": "uid=1k", "huge=yes": "huge=yes", "mpol=": "mpol=",
	} {
		if _, err := cmdline.ParseRun([]string{"--tmpfs", "/t:" + word, "img"}, client(t)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", word, err)
		}
	}
}

func TestRest(t *testing.T) {
	a := run(t, "--entrypoint", "", "--stop-timeout", "-1", "--shm-size", "1g", "--ulimit", "nofile=10:20", "--security-opt", "seccomp=unconfined",
		"--security-opt", "no-new-privileges:true", "--log-opt", "max-size=1m", "--log-opt", "max-file=3", "-l", "a=b", "-l", "c", "--network", "host",
		"-h", "box", "--storage-opt", "shift=copy").Ask
	ok := a.ReplaceEntry && len(a.Entrypoint) == 0 && *a.StopTimeout == -1 && a.ShmSize == 1<<30 && a.Ulimits[0] == ask.Ulimit{Name: "nofile", Soft: 10, Hard: 20} &&
		a.Seccomp.Mode == ask.SeccompUnconfined && a.NoNewPrivs && a.Log.Driver == "" && a.Log.Options["max-size"] == "1m" && a.Log.Options["max-file"] == "3" &&
		a.Labels["a"] == "b" && a.Labels["c"] == "" && a.Network == ask.NetHost && !a.NetworkDefault && a.Hostname == "box" && a.Shift == "copy"
	if !ok {
		t.Errorf("got %+v", a)
	}
	if a := run(t).Ask; a.Network != ask.NetBridge || !a.NetworkDefault {
		t.Errorf("default network: %q, %v", a.Network, a.NetworkDefault)
	}
}

func TestRefusals(t *testing.T) {
	for words, want := range map[string]string{
		"-v /a:/":                             "destination can't be '/'",
		"-v foo/bar:/x":                       "includes invalid characters for a local volume name",
		"-v /a:/b:nonsense":                   "invalid mode: nonsense",
		"-v /a:/x -v /b:/x":                   "Duplicate mount point: /x",
		"-v vol:":                             "empty section between colons",
		"-v /a:/b:":                           "empty section between colons",
		"--mount type=bind,target=/x":         "source is required",
		"--mount type=bind,source=/x":         "target is required",
		"--mount type=weird,target=/x":        "mount type",
		"--mount type=volume,target=/x,a=b":   "unexpected key 'a' in 'a=b'",
		"--tmpfs relative":                    "must be absolute",
		"--ulimit nofile":                     "invalid ulimit argument",
		"--name -x":                           "Invalid container name (-x)",
		"--security-opt apparmor=x":           "options are seccomp=PROFILE",
		"--security-opt seccomp=nowhere.json": "opening seccomp profile (nowhere.json) failed",
		"--log-opt max-file":                  "invalid logging opts",
		"-w relative":                         "the working directory 'relative' is invalid",
		"--env-file nowhere":                  "open nowhere: no such file or directory",
		"-e =x":                               "invalid environment variable",
		"--detach-keys ctrl-":                 "unknown character",
		"--nonsense":                          "unknown flag: --nonsense",
	} {
		_, err := cmdline.ParseRun(append(strings.Fields(words), "img"), client(t))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) || fault.ExitCodeOf(err) != 125 {
			t.Errorf("%q: %v", words, err)
		}
	}
}

func TestExec(t *testing.T) {
	e, err := cmdline.ParseExec([]string{"-i", "-u", "0:0", "-e", "A=1", "-w", "/x", "box", "sh", "-c", "y"}, cmdline.Client{})
	if err != nil || e.Container != "box" || !slices.Equal(e.Ask.Cmd, []string{"sh", "-c", "y"}) || !e.Ask.OpenStdin || !e.Attach.Stdin || e.Ask.User != "0:0" {
		t.Errorf("%+v, %v", e, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("-v\x00/a:/b:ro\x00--mount\x00type=bind,src=/x,dst=/y\x00img")
	f.Add("--tmpfs\x00/x:size=1k\x00--uidmap\x000:1:2\x00--ulimit\x00nofile=1:2\x00-e\x00A=b\x00img\x00sh")
	f.Add("-it\x00--detach-keys\x00ctrl-a,b\x00--log-opt\x00max-size=1m\x00--userns\x00auto:size=5\x00img")
	f.Add("--userns\x00keep-id:uid=1\x00--pid\x00container:a\x00--ipc=none\x00--uts=host\x00--cgroupns=private\x00--privileged\x00--net=container:a\x00img")
	f.Add("-m\x0064m\x00--cpus\x001.5\x00--device\x00/dev/a:/dev/b:rw\x00--device\x00v.c/d=e\x00--device-read-bps\x00/dev/a:1mb\x00--gpus\x00all\x00--sysctl\x00net.a=b\x00img")
	f.Add("--subuidname\x00a\x00--subgidname\x00b\x00--gidmap\x00+g0:@1\x00img")
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Split(line, "\x00")
		r, err := cmdline.ParseRun(words, cmdline.Client{Dir: "/"})
		if err == nil {
			if r.Ask.Image == "" || r.Ask.Userns == nil {
				t.Errorf("%q: incomplete ask", words)
			}
			if err := r.Ask.CheckConflicts(); err != nil {
				t.Errorf("%q: %v", words, err)
			}
			for _, m := range r.Ask.Mounts {
				if !filepath.IsAbs(m.Target) || m.Target == "/" || m.Kind == ask.Bind && !filepath.IsAbs(m.Source) {
					t.Errorf("%q: mount %+v", words, m)
				}
			}
		}
		_, _ = cmdline.ParseExec(words, cmdline.Client{Dir: "/"})
	})
}
