package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"

	"fief/internal/network/cni"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// defaultConfig is read when it exists; a file named with --config-file must.
const defaultConfig = "/etc/fief/fief.toml"

// settings is what the daemon was told, by flags and by fief.toml. The keys of
// the file are the flags' long names; a flag wins over the file.
type settings struct {
	DataRoot       string                      `toml:"data-root"`
	ExecRoot       string                      `toml:"exec-root"`
	Hosts          []string                    `toml:"hosts"`
	PIDFile        string                      `toml:"pidfile"`
	Remap          string                      `toml:"userns-remap"`
	UsernsMode     string                      `toml:"default-userns-mode"`
	DefaultRuntime string                      `toml:"default-runtime"`
	AddRuntime     []string                    `toml:"add-runtime"`
	Insecure       []string                    `toml:"insecure-registries"`
	IDRegistry     string                      `toml:"id-registry"`
	Debug          bool                        `toml:"debug"`
	LogLevel       string                      `toml:"log-level"`
	LogDriver      string                      `toml:"log-driver"`
	LogOpts        []string                    `toml:"log-opts"`
	Pool           int                         `toml:"pool-size"`
	Ulimits        []string                    `toml:"default-ulimits"`
	CDIDirs        []string                    `toml:"cdi-spec-dirs"`
	ExecOpts       []string                    `toml:"exec-opts"`
	Registries     map[string]registrySettings `toml:"registries"` // only in the file, as Policy
	AddressPools   []string                    `toml:"default-address-pools"`
	BridgeIP       string                      `toml:"bip"`
	FixedCIDR      string                      `toml:"fixed-cidr"`
	CNILists       string                      `toml:"cni-conf-dir"`
	CNIPlugins     []string                    `toml:"cni-plugin-dirs"`
	CNILimit       time.Duration               `toml:"cni-timeout"`
	Policy         policySettings              `toml:"policy"`
	Runtimes       map[string]runtimeSettings  `toml:"runtimes"` // the same
	configFile     string
	version        bool
}

// flags declares the command line over a set of settings. The names are
// dockerd's where dockerd has the thing.
func flags(s *settings) *pflag.FlagSet {
	f := pflag.NewFlagSet("fiefd", pflag.ContinueOnError)
	f.SortFlags = true
	f.StringVar(&s.DataRoot, "data-root", "/var/lib/fief", "Directory of images, containers and their state")
	f.StringVar(&s.ExecRoot, "exec-root", "/run/fief", "Directory of sockets and live state; must be on a tmpfs or ext4, xfs, btrfs")
	f.StringArrayVarP(&s.Hosts, "host", "H", nil, "Unix socket to serve the Docker API on, unix:///path (default unix://EXEC-ROOT/docker.sock)")
	f.StringVar(&s.configFile, "config-file", defaultConfig, "Configuration file")
	f.StringVarP(&s.PIDFile, "pidfile", "p", "", "File to write the daemon's process id to")
	f.StringVar(&s.Remap, "userns-remap", "", "One id range for all containers: user, user:group, uid, uid:gid or \"default\" (default: a range for each)")
	f.StringVar(&s.UsernsMode, "default-userns-mode", "", "User namespace of containers that ask for none: auto[:OPTIONS], keep-id[:OPTIONS], nomap or host (default: auto)")
	f.StringVar(&s.DefaultRuntime, "default-runtime", builtinRuntime, "Runtime of containers that name none")
	f.StringArrayVar(&s.AddRuntime, "add-runtime", nil, "Register an OCI runtime, NAME=PATH")
	f.StringArrayVar(&s.Insecure, "insecure-registry", nil, "Registry that may be spoken to without TLS")
	f.StringVar(&s.IDRegistry, "id-registry", "/var/lib/fief-ids", "Directory in which all daemons of this host note which ids they took")
	f.BoolVarP(&s.Debug, "debug", "D", false, "Log at level debug")
	f.StringVarP(&s.LogLevel, "log-level", "l", "info", "Log level: debug, info, warn or error")
	f.StringVar(&s.LogDriver, "log-driver", "json-file", "Log driver of containers that name none: json-file, local, journald or none")
	f.StringArrayVar(&s.LogOpts, "log-opt", nil, "Option of the default log driver, NAME=VALUE")
	f.IntVar(&s.Pool, "pool-size", 4, "Monitors and id ranges kept ready for the next starts")
	f.StringArrayVar(&s.CDIDirs, "cdi-spec-dir", []string{"/etc/cdi", "/var/run/cdi"}, "Directory of CDI descriptions of devices")
	f.StringArrayVar(&s.ExecOpts, "exec-opt", nil, "Option of the runtime: native.cgroupdriver=cgroupfs or native.cgroupdriver=systemd")
	f.StringArrayVar(&s.Ulimits, "default-ulimit", nil, "Resource limit of containers that ask for none of its kind, NAME=SOFT[:HARD]")
	f.StringArrayVar(&s.AddressPools, "default-address-pool", nil, "Range that networks get subnets of, base=PREFIX,size=BITS (default 172.17.0.0/12 in /16 and 192.168.0.0/16 in /20)")
	f.StringVar(&s.BridgeIP, "bip", "", "Address of the default network's bridge, with the length of its subnet (default: the first subnet that is free)")
	f.StringVar(&s.FixedCIDR, "fixed-cidr", "", "Range of the default network's subnet that containers get addresses of")
	f.StringVar(&s.CNILists, "cni-conf-dir", "/etc/cni/net.d", "Directory of CNI configuration lists, each a network; empty: none")
	f.StringArrayVar(&s.CNIPlugins, "cni-plugin-dir", []string{"/opt/cni/bin", "/usr/lib/cni"}, "Directory of CNI plugins")
	f.DurationVar(&s.CNILimit, "cni-timeout", cni.DefaultLimit, "How long the CNI plugins of a network may take for one container")
	f.BoolVarP(&s.version, "version", "v", false, "Print the version and quit")
	return f
}

// configure reads the command line and the file it names.
func configure(args []string) (settings, error) {
	var s settings
	f := flags(&s)
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fault.New(fault.Invalid, "start fiefd", "", "unexpected argument "+f.Arg(0), "see fiefd --help")
	}
	if s.version {
		return s, nil
	}
	if err := s.readFile(f); err != nil {
		return s, err
	}
	return s.check()
}

// readFile lays the file under the flags: a flag given on the command line is
// applied again after it.
func (s *settings) readFile(f *pflag.FlagSet) error {
	b, err := os.ReadFile(s.configFile)
	if errors.Is(err, fs.ErrNotExist) && !f.Changed("config-file") {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, "read configuration", s.configFile, err, "name another file with --config-file")
	}
	given := *s
	dec := toml.NewDecoder(strings.NewReader(string(b))).DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		return fault.Wrap(fault.Invalid, "read configuration", s.configFile, tomlReason(err), "keys are the long names of fiefd's flags, registries, policy and runtimes")
	}
	return s.restore(f, given)
}

// tomlReason keeps the line and key that the parser complains of.
func tomlReason(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		return errors.New("unknown key: " + strings.TrimSpace(strict.String()))
	}
	var dec *toml.DecodeError
	if errors.As(err, &dec) {
		return errors.New(dec.String())
	}
	return err
}

// restore puts back what the command line said, over what the file said.
func (s *settings) restore(f *pflag.FlagSet, given settings) error {
	for name, put := range map[string]func(){
		"data-root": func() { s.DataRoot = given.DataRoot }, "exec-root": func() { s.ExecRoot = given.ExecRoot },
		"host": func() { s.Hosts = given.Hosts }, "pidfile": func() { s.PIDFile = given.PIDFile },
		"userns-remap": func() { s.Remap = given.Remap }, "default-userns-mode": func() { s.UsernsMode = given.UsernsMode },
		"default-runtime": func() { s.DefaultRuntime = given.DefaultRuntime },
		"add-runtime":     func() { s.AddRuntime = given.AddRuntime }, "insecure-registry": func() { s.Insecure = given.Insecure },
		"id-registry": func() { s.IDRegistry = given.IDRegistry }, "debug": func() { s.Debug = given.Debug },
		"log-driver": func() { s.LogDriver = given.LogDriver }, "log-opt": func() { s.LogOpts = given.LogOpts },
		"log-level": func() { s.LogLevel = given.LogLevel }, "pool-size": func() { s.Pool = given.Pool },
		"default-ulimit": func() { s.Ulimits = given.Ulimits }, "cdi-spec-dir": func() { s.CDIDirs = given.CDIDirs },
		"exec-opt":             func() { s.ExecOpts = given.ExecOpts },
		"default-address-pool": func() { s.AddressPools = given.AddressPools },
		"bip":                  func() { s.BridgeIP = given.BridgeIP }, "fixed-cidr": func() { s.FixedCIDR = given.FixedCIDR },
		"cni-conf-dir": func() { s.CNILists = given.CNILists }, "cni-plugin-dir": func() { s.CNIPlugins = given.CNIPlugins },
		"cni-timeout": func() { s.CNILimit = given.CNILimit },
	} {
		if f.Changed(name) {
			put()
		}
	}
	return nil
}

// check refuses what cannot work and fills what depends on something else.
func (s settings) check() (settings, error) {
	for _, d := range []struct{ flag, dir string }{
		{"--data-root", s.DataRoot}, {"--exec-root", s.ExecRoot}, {"--id-registry", s.IDRegistry},
	} {
		if !filepath.IsAbs(d.dir) {
			return s, fault.New(fault.Invalid, "use", d.flag+" "+d.dir, "the path is not absolute", "")
		}
	}
	if len(s.Hosts) == 0 {
		s.Hosts = []string{"unix://" + filepath.Join(s.ExecRoot, "docker.sock")}
	}
	for _, h := range s.Hosts {
		if path, ok := strings.CutPrefix(h, "unix://"); !ok || !filepath.IsAbs(path) {
			return s, fault.New(fault.Unsupported, "listen on", h, "only unix sockets are served",
				"use unix:///path; the API gives root, so it is not offered on the network")
		}
	}
	if _, err := s.level(); err != nil {
		return s, err
	}
	if s.Pool < 0 || s.Pool > 64 {
		return s, fault.New(fault.Invalid, "use", "--pool-size", "it must be from 0 to 64", "")
	}
	if _, err := s.logs(); err != nil {
		return s, err
	}
	if _, err := s.userns(); err != nil {
		return s, err
	}
	if _, err := s.ulimits(nil); err != nil {
		return s, err
	}
	if _, err := s.cgroupDriver(); err != nil {
		return s, err
	}
	if _, err := s.reach(); err != nil {
		return s, err
	}
	if _, err := s.defaultSubnet(); err != nil {
		return s, err
	}
	if _, err := s.policy(); err != nil {
		return s, err
	}
	_, _, err := s.runtimes()
	return s, err
}

// userns is what containers get that ask for nothing; nil for the built-in
// default.
func (s settings) userns() (ask.Userns, error) {
	if s.UsernsMode == "" {
		return nil, nil
	}
	if s.Remap != "" {
		return nil, fault.New(fault.Invalid, "use", "--default-userns-mode "+s.UsernsMode, "--userns-remap decides the same", "leave one of the two out")
	}
	u, err := ask.UsernsWords{Mode: s.UsernsMode}.Parse()
	if err != nil {
		return nil, err
	}
	switch u.(type) {
	case ask.UsernsAuto, ask.UsernsKeepID, ask.UsernsNomap, ask.UsernsHost:
		return u, nil
	}
	return nil, fault.New(fault.Invalid, "use", "--default-userns-mode "+s.UsernsMode, "it cannot be a default", "use auto, keep-id, nomap or host")
}

// logs is where the output of containers goes that do not say.
func (s settings) logs() (ask.Log, error) {
	l := ask.Log{Driver: s.LogDriver, Options: map[string]string{}}
	for _, opt := range s.LogOpts {
		key, value, ok := strings.Cut(opt, "=")
		if !ok || key == "" {
			return l, fault.New(fault.Invalid, "use", "--log-opt "+opt, "it is not NAME=VALUE", "")
		}
		l.Options[key] = value
	}
	_, err := l.Parse()
	return l, err
}

func (s settings) level() (slog.Level, error) {
	if s.Debug {
		return slog.LevelDebug, nil
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(s.LogLevel)); err != nil {
		return l, fault.New(fault.Invalid, "use", "--log-level "+s.LogLevel, "no such level", "levels are debug, info, warn and error")
	}
	return l, nil
}
