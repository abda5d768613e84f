#!/usr/bin/env bash
# Installs by apt what the tests, the demo and the bench use and is not there.
# With the argument "bench" also the engines that fief is measured against, with
# "oci" the runtimes that fief-oci is compared with.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A wants=(
	[debootstrap]=debootstrap [busybox]=busybox-static [mkfs.xfs]=xfsprogs [mkfs.btrfs]=btrfs-progs
	[ip]=iproute2 [ps]=procps [script]=bsdutils [losetup]=mount [zstd]=zstd [skopeo]=skopeo
	[docker-compose]=docker-compose [xz]=xz-utils [bzip2]=bzip2 [curl]=curl
	[podman]=podman [conmon]=conmon [runc]=runc [crun]=crun
)
if [ "${1:-}" = bench ]; then
	wants+=([bwrap]=bubblewrap [gcc]=gcc)
fi

# containerd's package starts a daemon: its programs are only unpacked.
if ! command -v containerd >/dev/null && [ ! -x bin/containerd/usr/bin/containerd ]; then
	apt-get update -qq
	at=$(mktemp -d)
	(cd "$at" && apt-get download -qq containerd)
	mkdir -p bin/containerd
	dpkg -x "$at"/containerd_*.deb bin/containerd
	rm -rf "$at"
fi
# So does PostgreSQL's, unless it is told not to.
if [ ! -d /usr/lib/postgresql ]; then
	mkdir -p /etc/postgresql-common
	[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
	wants+=([/usr/lib/postgresql]=postgresql)
fi
if [ "${1:-}" = oci ]; then
	wants+=([tar]=tar [unshare]=util-linux)
fi

missing=()
for cmd in "${!wants[@]}"; do
	PATH=$PATH:/usr/sbin:/sbin command -v "$cmd" >/dev/null || missing+=("${wants[$cmd]}")
done
# A dynamic busybox is no use in an empty root filesystem.
if command -v busybox >/dev/null && LC_ALL=C ldd "$(command -v busybox)" >/dev/null 2>&1; then
	missing+=(busybox-static)
fi
[ ${#missing[@]} -gt 0 ] || exit 0
echo "installing: ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
