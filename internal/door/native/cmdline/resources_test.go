package cmdline_test

import (
	"reflect"
	"strings"
	"testing"

	"fief/internal/door/native/cmdline"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func TestResources(t *testing.T) {
	nine, seven := int64(9), int64(7)
	rate := func(n uint64) []record.DeviceRate { return []record.DeviceRate{{Path: "/dev/sda", Rate: n}} }
	for words, want := range map[string]record.Resources{
		"":                                      {},
		"-m 64m --memory-swap -1":               {Memory: 64 << 20, MemorySwap: -1},
		"--memory 1g --memory-swap 2g":          {Memory: 1 << 30, MemorySwap: 2 << 30},
		"--memory-reservation 7m":               {MemoryReservation: 7 << 20},
		"--kernel-memory 7m":                    {},
		"--cpus 1.5 -c 5":                       {NanoCPUs: 1500000000, CPUShares: 5},
		"--cpu-period 1 --cpu-quota -1":         {CPUPeriod: 1, CPUQuota: -1},
		"--cpu-rt-period 2 --cpu-rt-runtime 1":  {RTPeriod: 2, RTRuntime: 1},
		"--cpuset-cpus 0-1 --cpuset-mems 0":     {CpusetCpus: "0-1", CpusetMems: "0"},
		"--pids-limit 9":                        {PidsLimit: &nine},
		"--memory-swappiness 7":                 {MemorySwappiness: &seven},
		"--oom-kill-disable --oom-score-adj -9": {OomKillDisable: true, OomScoreAdj: -9},
		"--blkio-weight 10 --blkio-weight-device /dev/sda:500": {BlkioWeight: 10, BlkioWeightDevice: []record.DeviceWeight{{Path: "/dev/sda", Weight: 500}}},
		"--device-read-bps /dev/sda:1mb":                       {ReadBps: rate(1 << 20)},
		"--device-write-bps /dev/sda:2":                        {WriteBps: rate(2)},
		"--device-read-iops /dev/sda:3":                        {ReadIOps: rate(3)},
		"--device-write-iops /dev/sda:4":                       {WriteIOps: rate(4)},
		"--device /dev/a":                                      {Devices: []record.Device{{Host: "/dev/a", Container: "/dev/a", Access: "rwm"}}},
		"--device /dev/a:rw":                                   {Devices: []record.Device{{Host: "/dev/a", Container: "/dev/a", Access: "rw"}}},
		"--device /dev/a:/dev/b":                               {Devices: []record.Device{{Host: "/dev/a", Container: "/dev/b", Access: "rwm"}}},
		"--device /dev/a:/dev/b:r":                             {Devices: []record.Device{{Host: "/dev/a", Container: "/dev/b", Access: "r"}}},
		"--device a.com/b=c --gpus 2":                          {CDI: []string{"a.com/b=c", "nvidia.com/gpu=0", "nvidia.com/gpu=1"}},
		"--gpus device=3,x":                                    {CDI: []string{"nvidia.com/gpu=3", "nvidia.com/gpu=x"}},
		"--cgroup-parent /x":                                   {Parent: "/x"},
	} {
		if got := run(t, strings.Fields(words)...).Ask.Resources; !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v", words, got)
		}
	}
	if got := run(t, "--device-cgroup-rule", "c 1:* rwm").Ask.Resources.DeviceRules; len(got) != 1 {
		t.Errorf("rules %q", got)
	}
	if got := run(t, "--sysctl", "net.a=b=c", "--sysctl", "kernel.sem=1 2").Ask.Sysctls; got["net.a"] != "b=c" || got["kernel.sem"] != "1 2" {
		t.Errorf("sysctls %q", got)
	}
}

func TestBadResources(t *testing.T) {
	for words, want := range map[string]string{
		"--memory x":                       "invalid size: 'x'",
		"--memory-swap -2":                 "-2",
		"--cpus x":                         "failed to parse x as a rational number",
		"--cpus 1e999999999":               "failed to parse",
		"--cpus 0.0000000001":              "value is too precise",
		"--memory-swappiness 101":          "Valid memory swappiness range is 0-100",
		"--blkio-weight-device sda:1":      "bad format for device path: sda:1",
		"--blkio-weight-device /dev/sda":   "bad format: /dev/sda",
		"--blkio-weight-device /dev/sda:5": "invalid weight for device: /dev/sda:5",
		"--device-read-bps /dev/sda:x":     "invalid rate for device: /dev/sda:x",
		"--device-read-iops /dev/sda:1mb":  "invalid rate for device: /dev/sda:1mb",
		"--device a":                       "a is not an absolute path",
		"--device /a:/b:q":                 "bad mode specified: q",
		"--device /a:/b:r:w":               "bad format for path: /a:/b:r:w",
		"--device-cgroup-rule c":           "invalid device cgroup format 'c'",
		"--gpus some":                      "it is all, a number",
		"--sysctl nothing":                 "sysctl 'nothing' is not allowed",
		"--sysctl ../x=1":                  "is not allowed",
	} {
		_, err := cmdline.ParseRun(append(strings.Fields(words), "img"), client(t))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) || fault.ExitCodeOf(err) != 125 {
			t.Errorf("%q: %v", words, err)
		}
	}
}
