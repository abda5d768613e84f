# fief as systemd runs it, in a virtual machine: installed, started by its socket,
# stopped and started again below running containers, with limits that systemd is
# asked to leave alone, and over a reboot. inside.sh reads this file, before
# the reboot and after it. What each check says is in the form of go test.
results=/mnt/out/test+vm
[ -e /mnt/out/rebooted ] || : >$results

# check NAME: runs the function of that name; every command of it must succeed.
check() {
	local code since=$SECONDS
	echo "=== RUN   $1" >>$results
	(set -ex; "$1") >/mnt/out/check 2>&1 </dev/null
	code=$? # not after ||, where -e has no effect
	if [ $code = 0 ]; then
		echo "--- PASS: $1 ($((SECONDS - since)).00s)" >>$results
	else
		sed 's/^/    /' /mnt/out/check >>$results
		echo "--- FAIL: $1 ($((SECONDS - since)).00s)" >>$results
	fi
	say "$1: exit $code"
}

# until_ok COMMAND…: waits for it to succeed, for two minutes at most.
until_ok() {
	local n
	for n in $(seq 240); do
		if "$@" >/dev/null 2>&1; then return 0; fi
		sleep 0.5
	done
	"$@"
}

pid_of() { fief inspect -f '{{.State.Pid}}' "$1"; }
group_of() { sed -n 's/^0:://p' "/proc/$(pid_of "$1")/cgroup"; }

TestSocketStartsTheDaemon() {
	tar -C /mnt/install -cf - . | tar -C / --keep-directory-symlink -xf -
	systemctl daemon-reload
	systemctl enable --now fief.socket
	systemctl enable fief.service
	[ "$(systemctl is-active fief.service)" != active ]
	fief info | tee /mnt/out/info.systemd
	systemctl is-active fief.service
	grep -q 'Cgroup Driver: systemd' /mnt/out/info.systemd
}

TestContainersOutliveTheDaemon() {
	fief run -d --name kept --restart always host sleep 1000000
	pid=$(pid_of kept)
	[ "$(group_of kept)" = "/system.slice/fief-containers.service/$(fief inspect -f '{{.Id}}' kept)" ]
	systemctl restart fief.service
	[ "$(pid_of kept)" = "$pid" ]
	fief exec kept true
	systemctl stop fief.service
	kill -0 "$pid"
	systemctl start fief.service
	[ "$(pid_of kept)" = "$pid" ]
	fief exec kept cat /proc/self/cgroup
	systemctl status fief-containers.service
}

TestLimitsOutliveAReload() {
	fief run -d --name limited -m 64m --pids-limit 40 --cpus 0.5 host sleep 1000000
	group=/sys/fs/cgroup$(group_of limited)
	for _ in 1 2; do
		[ "$(cat "$group/memory.max")" = 67108864 ]
		[ "$(cat "$group/pids.max")" = 40 ]
		[ "$(cat "$group/cpu.max")" = '50000 100000' ]
		systemctl daemon-reload
	done
	fief update --pids-limit 50 limited
	[ "$(cat "$group/pids.max")" = 50 ]
	fief pause limited
	grep -q 'frozen 1' "$group/cgroup.events"
	fief unpause limited
	fief stats --no-stream limited
	fief rm -f limited
	[ ! -e "$group" ]
}

TestSlices() {
	fief run -d --name sliced --cgroup-parent fieftest-b.slice host sleep 1000000
	[ "$(group_of sliced)" = "/fieftest.slice/fieftest-b.slice/fief-containers-of-fieftest-b.service/$(fief inspect -f '{{.Id}}' sliced)" ]
	systemctl set-property --runtime fieftest-b.slice MemoryMax=100M
	[ "$(cat /sys/fs/cgroup/fieftest.slice/fieftest-b.slice/memory.max)" = 104857600 ]
	fief rm -f sliced
	if fief run --rm --cgroup-parent /some/path host true >/tmp/refused 2>&1; then false; fi
	grep 'should be a valid slice' /tmp/refused
}

TestMemoryRunsOut() {
	code=0
	fief run --name hungry -m 32m --memory-swap 32m host tail /dev/zero || code=$?
	[ $code = 137 ]
	[ "$(fief inspect -f '{{.State.OOMKilled}}' hungry)" = true ]
	fief rm hungry
	fief exec kept true
}

# Reading of 6 MiB with 1 MiB a second takes five seconds and more; without, on an
# emulated disk, it must take less to say anything.
TestReadsAreThrottled() {
	dd if=/dev/urandom of=/srv/read bs=1M count=6
	chmod 644 /srv/read
	sync
	read_it() { fief run --rm -v /srv/read:/read:ro "$@" host dd if=/read of=/dev/null bs=64k iflag=direct; }
	from=$(date +%s%N)
	read_it
	free=$((($(date +%s%N) - from) / 1000000))
	from=$(date +%s%N)
	read_it --device-read-bps /dev/vda:1mb
	slow=$((($(date +%s%N) - from) / 1000000))
	echo "$free ms, $slow ms"
	[ $slow -ge 5000 ]
	[ $free -lt $((slow - 2000)) ]
}

TestTwoDrivers() { # containers of one driver are found by a daemon with the other
	mkdir -p /run/systemd/system/fief.service.d
	printf '[Service]\nExecStart=\nExecStart=/usr/local/bin/fiefd --exec-opt native.cgroupdriver=cgroupfs\n' >/run/systemd/system/fief.service.d/driver.conf
	systemctl daemon-reload
	systemctl restart fief.service
	fief info | grep 'Cgroup Driver: cgroupfs'
	fief exec kept true
	fief pause kept
	fief unpause kept
	fief run -d --name other host sleep 1000000
	other=$(fief inspect -f '{{.Id}}' other)
	[ "$(group_of other)" = "/fief/$other" ]
	rm /run/systemd/system/fief.service.d/driver.conf
	systemctl daemon-reload
	systemctl restart fief.service
	fief exec other true
	fief rm -f other
	[ ! -e "/sys/fs/cgroup/fief/$other" ]
}

TestContainersComeBackAfterAReboot() {
	until_ok systemctl is-active fief.service
	until_ok fief exec kept true
	[ "$(fief inspect -f '{{.State.Running}}' kept)" = true ]
	went=$(cat /mnt/out/rebooted)
	came=$(($(date +%s) - $(cut -d. -f1 /proc/uptime)))
	echo "the machine took $((came - went)) s to go down"
	[ $((came - went)) -lt 80 ] # not the 90 s that systemd gives who does not listen
	journalctl -b -1 -u fief-containers.service -u fief.service --no-pager || true
	fief rm -f kept
	[ -z "$(fief ps -aq)" ]
}

if [ ! -e /mnt/out/rebooted ]; then
	PATH=/usr/local/bin:$PATH
	for name in TestSocketStartsTheDaemon TestContainersOutliveTheDaemon TestLimitsOutliveAReload TestSlices TestMemoryRunsOut TestReadsAreThrottled TestTwoDrivers; do
		check $name
	done
	mkdir -p /var/log/journal
	date +%s >/mnt/out/rebooted
	sync
	systemctl reboot
	sleep 1000 # until it is ended
fi
check TestContainersComeBackAfterAReboot
cp /mnt/out/check /mnt/out/check.reboot
if grep -q '^--- FAIL' $results; then echo FAIL; else echo PASS; fi >>$results
