# The only process that a virtual machine is started for, as its init: mounts
# what systemd would, cgroup v2 only, runs the tests that lie on /mnt, and
# turns the machine off. What they print goes to /mnt/out, one file a package.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux LC_ALL=C.UTF-8
export FIEF_HOARD=/mnt/src/bin/hoard # there is no Go here to build it
mount -o remount,rw /
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev shm /dev/shm
mount -t tmpfs -o nosuid,nodev,mode=755 run /run
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
mount -t mqueue mqueue /dev/mqueue 2>/dev/null
ip link set lo up
hostname vm
echo 127.0.0.1 localhost vm >/etc/hosts
touch /etc/resolv.conf
echo 3 >/proc/sys/kernel/printk
. /mnt/options

say() { echo "vm: $(cut -d' ' -f1 /proc/uptime): $*"; }

run() { # run PACKAGE [REGEXP [WITHOUT]]: its compiled tests, in its directory
	cd "/mnt/src/$1" || return
	timeout -s QUIT "${limit:-600}" ./vm.test -test.v=test2json -test.timeout "${limit:-600}s" ${2:+-test.run "$2"} ${3:+-test.skip "$3"} \
		>"/mnt/out/${1//\//+}" 2>&1 </dev/null
	say "$1: exit $?"
}

say "$(uname -r)"
mkdir -p /mnt/out
modprobe loop # udev would make /dev/loop-control without it
for fs in xfs btrfs; do
	mkdir -p /srv/$fs
	truncate -s 400M /srv/$fs.img
	mkfs.$fs -q /srv/$fs.img >/dev/null && mount -o loop /srv/$fs.img /srv/$fs
done
unshare -m /mnt/src/bin/abilities /var/tmp /srv/xfs /srv/btrfs /run >/mnt/out/abilities 2>&1
say "abilities: exit $?"
while read -r package only without; do run "$package" "$only" "$without"; done </mnt/tests

# What fief itself says of this machine.
PATH=/mnt/src/bin:$PATH
fiefd >/mnt/out/fiefd.log 2>&1 &
for _ in $(seq 100); do [ -S /run/fief/native.sock ] && break; sleep 0.1; done
fief info >/mnt/out/info 2>&1
fief run --rm host cat /proc/self/uid_map >/mnt/out/host 2>&1
say "fief info: exit $?"
[ ! -f /mnt/script.sh ] || . /mnt/script.sh >/mnt/out/script 2>&1
dmesg >/mnt/out/dmesg
kill %1 && wait
say done
cd /
sync
mount -o remount,ro /mnt # this very script keeps it busy
exec busybox poweroff -f
