#!/usr/bin/env bash
# Installs by apt what the tests, the demo and the bench use and is not there.
# With the argument "bench" also the engines that fief is measured against.
set -euo pipefail

declare -A wants=(
	[debootstrap]=debootstrap [busybox]=busybox-static [mkfs.xfs]=xfsprogs [mkfs.btrfs]=btrfs-progs
	[ip]=iproute2 [ps]=procps [script]=bsdutils [losetup]=mount [zstd]=zstd [skopeo]=skopeo
	[xz]=xz-utils [bzip2]=bzip2 [curl]=curl [crun]=crun [runc]=runc
)
if [ "${1:-}" = bench ]; then
	wants+=([bwrap]=bubblewrap [podman]=podman [gcc]=gcc)
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
