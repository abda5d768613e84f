# What a virtual machine is started for, a service of its systemd: runs the tests
# that lie on /mnt, and turns the machine off. What they print goes to /mnt/out,
# one file a package.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux LC_ALL=C.UTF-8
export FIEF_HOARD=/mnt/src/bin/hoard FIEF_OCI=/mnt/src/bin/fief-oci # there is no Go here to build them
unset NOTIFY_SOCKET
mount -o remount,rw /
hostname vm
echo 127.0.0.1 localhost vm >/etc/hosts
touch /etc/resolv.conf
echo 3 >/proc/sys/kernel/printk
. /mnt/options

say() { echo "vm: $(cut -d' ' -f1 /proc/uptime): $*"; }

run() { # run PACKAGE [REGEXP [WITHOUT]]: its compiled tests, in its directory
	cd "/mnt/src/$1" || return
	if [ "$(cut -d. -f1 /proc/uptime)" -gt "${until:-1000000}" ]; then
		say "$1: left out"
		return
	fi
	timeout -s QUIT "$((limit + 60))" ./vm.test -test.v=test2json -test.timeout "${limit}s" $([ -n "$whole" ] || echo -test.short) ${2:+-test.run "$2"} ${3:+-test.skip "$3"} \
		>"/mnt/out/${1//\//+}" 2>&1 </dev/null
	say "$1: exit $?"
}

finish() { # turns the machine off
	dmesg >/mnt/out/dmesg
	journalctl -b --no-pager >/mnt/out/journal 2>/dev/null
	say "${1:-done}"
	cd /
	sync
	mount -o remount,ro /mnt # this very script keeps it busy
	exec busybox poweroff -f
}

if [ -e /mnt/out/rebooted ]; then # by systemd.sh, which has more to say
	. /mnt/src/test/vm/systemd.sh
	finish
fi
if [ -e /mnt/out/abilities ]; then
	finish "started again, and nobody had asked for it"
fi
say "$(uname -r), systemd $(systemctl --version | sed -n '1s/.*(\(.*\))/\1/p')"
mkdir -p /mnt/out
modprobe loop # udev would make /dev/loop-control without it
for fs in xfs btrfs; do
	mkdir -p /srv/$fs
	truncate -s 400M /srv/$fs.img
	mkfs.$fs -q /srv/$fs.img >/dev/null && mount -o loop /srv/$fs.img /srv/$fs
done
unshare -m /mnt/src/bin/abilities /var/tmp /srv/xfs /srv/btrfs /run >/mnt/out/abilities 2>&1
say "abilities: exit $?"
while read -r package only without; do
	[ "$package" = test/vm ] || run "$package" "$only" "$without" # that one is the last
done </mnt/tests

# What fief itself says of this machine.
PATH=/mnt/src/bin:$PATH
if [ ! -f /mnt/script.sh ] && ! grep -qx test/vm /mnt/tests; then finish; fi
fiefd >/mnt/out/fiefd.log 2>&1 &
for _ in $(seq 100); do [ -S /run/fief/native.sock ] && break; sleep 0.1; done
fief info >/mnt/out/info 2>&1
fief run --rm host cat /proc/self/uid_map >/mnt/out/host 2>&1
say "fief info: exit $?"
[ ! -f /mnt/script.sh ] || . /mnt/script.sh >/mnt/out/script 2>&1
kill %1 && wait
! grep -qx test/vm /mnt/tests || . /mnt/src/test/vm/systemd.sh
finish
