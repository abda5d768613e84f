#!/usr/bin/env bash
# Runs every test as root in mount and network namespaces of its own, counts the
# skips, and fails when anything is left behind. Arguments go to go test.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "the suite needs root" >&2; exit 1; }

if [ -z "${FIEF_TEST_INSIDE:-}" ]; then
	go mod download
	mkdir -p bin
	go build -o bin/ledger ./test/ledger
	# Here, as the tests are without the internet.
	CGO_ENABLED=0 go build -C test/network/plugins -o "$PWD/bin/cni/" tool
	make build
	exec env FIEF_TEST_INSIDE=1 FIEF_TEST_BUILT=1 unshare --mount --net --propagation private "$0" "$@"
fi
ip link set lo up
# An address that is not loopback, for tests of what loopback alone may do.
ip link add outside0 type veth peer name outside1
ip address add 192.0.2.1/24 dev outside0
ip link set outside0 up
mount -t tmpfs -o mode=755 fief-ids /var/lib/fief-ids 2>/dev/null || true

# Everything that a test could leave behind, one thing a line.
left() (
	set +e +o pipefail # what is not there is not left
	awk '{print "mount " $5}' /proc/self/mountinfo
	ls /run/netns 2>/dev/null | sed 's/^/netns /'
	losetup -ln -O BACK-FILE 2>/dev/null | sed 's/^/loop /'
	find /sys/fs/cgroup -type d -path '*fief*' 2>/dev/null | sed 's/^/cgroup /'
	ls -d /tmp/fief-* /var/lib/fief /run/fief 2>/dev/null | sed 's/^/file /'
	for p in /proc/[0-9]*; do
		exe=$(readlink "$p/exe" 2>/dev/null) || continue
		# A monitor's program is / when the daemon that started it has ended.
		read -r name <"$p/comm" 2>/dev/null && [ "$name" = fief-mon ] && exe=/fief-mon
		case $exe in */fief | */fiefd | */fief-mon | */fief-oci) echo "process $(basename "$p") $exe" ;; esac
	done
	ip -o link show | awk -F': ' '{print "device " $2}'
	command -v nft >/dev/null && nft list tables 2>/dev/null | sed 's/^/nft /'
	true
)
left | sort >bin/left.before
status=0
go test -json -count 1 -p 1 -timeout 20m "$@" ./... | bin/ledger test/skips.txt || status=$?
for _ in 1 2 3 4 5; do # daemons and monitors may still be on their way out
	left | sort >bin/left.after
	comm -13 bin/left.before bin/left.after >bin/left.new
	[ -s bin/left.new ] || break
	sleep 1
done
if [ -s bin/left.new ]; then
	echo "left behind:" >&2
	cat bin/left.new >&2
	status=1
fi
exit $status
