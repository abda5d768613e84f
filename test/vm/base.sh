#!/usr/bin/env bash
# base.sh SUITE: makes in .cache/vm/SUITE what does not change between runs:
# vmlinuz and initrd of that Debian suite's own kernel, and disk.img, a minimal
# Debian of the suite with the kernel's modules. The kernel is unpacked from its
# package, never installed: nothing of this machine changes.
set -euo pipefail
[ -n "${FIEF_VM_ALONE:-}" ] || FIEF_VM_ALONE=yes exec unshare -m "$0" "$@" # its mounts are its own
cd "$(dirname "$0")/../.."
suite=$1
dir=$PWD/.cache/vm/$suite
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
[ ! -s "$dir/disk.img" ] || exit 0
# Packages come from where this machine has its own from.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' | grep -m 1 '/debian/*$')}
mirror=${mirror%/}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
include=kmod,procps,busybox-static,iproute2,zstd,e2fsprogs,xfsprogs,btrfs-progs,systemd-sysv,dbus,make

# suiteapt ARGS…: apt-get on the suite's lists, in a state of its own.
suiteapt() {
	apt-get -qq -o Dir::Etc::sourcelist="$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State="$dir/apt/state" \
		-o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt/cache" -o APT::Sandbox::User=root "$@"
}
mkdir -p "$dir"/apt/{state/lists,cache/archives}/partial
: >"$dir/apt/status"
printf "deb [signed-by=$keyring] $mirror%s main\n" " $suite" >"$dir/apt/sources.list"
# sid is where updates are made: it has none of its own.
[ "$suite" = sid ] || printf "deb [signed-by=$keyring] $mirror%s main\n" " $suite-updates" "-security $suite-security" >>"$dir/apt/sources.list"
suiteapt update

rm -rf "$dir"/{root,kernel} "$dir"/apt/linux-*.deb
mkdir -p "$dir/debs" "$dir/root"
mount -t tmpfs -o mode=755,size=3G root "$dir/root" # dpkg waits for a disk at every file
echo "vm: $suite: debootstrap" >&2
debootstrap --variant=minbase --include=$include --cache-dir="$dir/debs" "$suite" "$dir/root" "$mirror" >"$dir/debootstrap.log" 2>&1 || {
	tail "$dir/debootstrap.log" >&2
	exit 1
}
# Since Linux 7 the kernel and its modules are packages that linux-image only depends on.
packages=$(suiteapt -s install --no-install-recommends linux-image-amd64 | sed -n 's/^Inst \(linux-\(image\|base\|binary\|modules\)-[0-9][^ ]*\) .*/\1/p')
echo "vm: $suite:" $packages >&2
(cd "$dir/apt" && suiteapt download $packages)
for deb in "$dir"/apt/linux-*.deb; do dpkg -x "$deb" "$dir/kernel"; done
modules=$dir/kernel/lib/modules
[ -d "$modules" ] || modules=$dir/kernel/usr/lib/modules
release=$(ls "$modules")
vmlinuz=$dir/kernel/boot/vmlinuz-$release
[ -e "$vmlinuz" ] || vmlinuz=$modules/$release/vmlinuz
cp -L "$vmlinuz" "$dir/vmlinuz"
mkdir -p "$dir/root/usr/lib/modules"
cp -a "$modules/$release" "$dir/root/usr/lib/modules/"
rm -rf "$dir/root/usr/lib/modules/$release/kernel"/{drivers/{gpu,media,infiniband,net/{wireless,ethernet},staging,iio,usb,scsi,sound,hid,input},sound}
chroot "$dir/root" depmod "$release"

# systemd starts one thing, and talks to nobody.
cat >"$dir/root/etc/systemd/system/inside.service" <<'END'
[Unit]
Description=tests
After=basic.target dbus.service
[Service]
ExecStart=/bin/bash /mnt/inside.sh
StandardOutput=file:/dev/ttyS0
StandardError=inherit
LimitNOFILE=1048576
TasksMax=infinity
[Install]
WantedBy=multi-user.target
END
units=$dir/root/etc/systemd/system
mkdir -p "$units/multi-user.target.wants"
ln -sf ../inside.service "$units/multi-user.target.wants/"
ln -sf /usr/lib/systemd/system/multi-user.target "$units/default.target"
for unit in {getty@tty1,serial-getty@ttyS0,console-getty,systemd-resolved,systemd-timesyncd,systemd-networkd,systemd-firstboot,e2scrub_reap}.service \
	systemd-networkd{,-varlink,-varlink-metrics,-resolve-hook}.socket {apt-daily,apt-daily-upgrade,dpkg-db-backup,e2scrub_all,fstrim}.timer; do
	ln -sf /dev/null "$units/$unit"
done
echo uninitialized >"$dir/root/etc/machine-id"

# The initial file system: busybox, the modules of the disk, and ten lines.
init=$dir/initrd.d
rm -rf "$init" && mkdir -p "$init"/{bin,dev,proc,sys,new,modules}
cp "$dir/root/usr/bin/busybox" "$init/bin/" 2>/dev/null || cp "$dir/root/bin/busybox" "$init/bin/"
for name in virtio_pci virtio_blk crc32c_generic ext4; do
	{ chroot "$dir/root" modprobe -S "$release" --show-depends "$name" 2>/dev/null || true; } | sed -n 's/^insmod \([^ ]*\).*/\1/p' # or it is built in
done | awk '!seen[$0]++' >"$dir/modules"
n=100
while read -r module; do
	n=$((n + 1))
	case $module in
	*.xz) xz -dc "$dir/root$module" >"$init/modules/$n.ko" ;;
	*.zst) zstd -qdc "$dir/root$module" >"$init/modules/$n.ko" ;;
	*) cp "$dir/root$module" "$init/modules/$n.ko" ;;
	esac
done <"$dir/modules"
cat >"$init/init" <<'END'
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
for module in /modules/*; do busybox insmod "$module"; done
until [ -b /dev/vdb ]; do busybox sleep 0.1; done
busybox mount -t ext4 /dev/vda /new && busybox mount -t ext4 /dev/vdb /new/mnt || busybox poweroff -f
for dir in proc sys dev; do busybox mount --move /$dir /new/$dir; done
exec busybox switch_root /new /lib/systemd/systemd
END
chmod 755 "$init/init"
(cd "$init" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$dir/initrd"

rm -f "$dir/disk.new"
truncate -s 3G "$dir/disk.new"
mkfs.ext4 -q -F -d "$dir/root" "$dir/disk.new"
mv "$dir/disk.new" "$dir/disk.img"
umount "$dir/root"
rm -rf "$dir/root" "$dir/kernel" "$init" "$dir/apt" "$dir/debs"
