#!/usr/bin/env bash
# The main job, told step by step: an engine of its own on a temporary state
# directory, a real Debian image, the built-in host image, and what each
# command proves. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "the demo needs root" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/fief-demo.XXXXXX")
export FIEF_HOST=unix://$work/run/docker.sock
export PATH=$PWD/bin:$PATH
daemon=

cleanup() {
	fief ps -aq 2>/dev/null | xargs -r fief rm -f >/dev/null 2>&1 || true
	[ -z "$daemon" ] || { kill "$daemon" 2>/dev/null; wait "$daemon" 2>/dev/null; } || true
	rm -rf "$work"
}
trap cleanup EXIT

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
# show CMD…: prints a command as one would type it.
show() {
	local word line='$'
	for word; do
		[[ $word =~ ^[A-Za-z0-9_./:=,@%+{}-]+$ ]] || word=${word@Q}
		line+=" $word"
	done
	printf '%s\n' "${line//$work/…}"
}
# run CMD…: shows the command, then runs it.
run() { show "$@"; "$@"; }
# refused CMD…: like run, for a command that must fail.
refused() {
	show "$@"
	if "$@"; then echo "demo: this should have been refused" >&2; exit 1; fi
}
# same WHAT GOT WANT: stops the demo when a proof fails.
same() { [ "$2" = "$3" ] || { echo "demo: $1: got '$2', want '$3'" >&2; exit 1; }; }

start() {
	fiefd --data-root "$work/data" --exec-root "$work/run" --id-registry "$work/ids" >>"$work/log" 2>&1 &
	daemon=$!
	for _ in $(seq 100); do fief version >/dev/null 2>&1 && return; sleep 0.05; done
	cat "$work/log" >&2
	exit 1
}

say "An engine on a state directory of its own"
start
run fief version

say "A real Debian image, made here with debootstrap (cached in .cache)"
mkdir -p .cache
if [ ! -s .cache/debian.tar ]; then
	echo '$ debootstrap --variant=minbase stable …'
	debootstrap --variant=minbase stable "$work/debian" >"$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log" >&2; exit 1; }
	tar -C "$work/debian" --numeric-owner --xattrs -cf .cache/debian.tar.new . && mv .cache/debian.tar.new .cache/debian.tar
	rm -rf "$work/debian"
fi
run fief import .cache/debian.tar debian
run fief images

say "Root inside …"
run fief run --rm debian id
say "… is nobody outside: the same process, seen by the host"
run fief run -d --name vassal debian sleep 1000
pid=$(fief inspect -f '{{.State.Pid}}' vassal)
run ps -o uid,gid,pid,args -p "$pid"
uid=$(ps -o uid= -p "$pid" | tr -d ' ')
[ "$uid" -ge 524288 ] || { echo "demo: host uid is $uid" >&2; exit 1; }
run fief exec vassal cat /proc/self/uid_map
same "the map's base" "$(fief exec vassal awk '{print $2}' /proc/self/uid_map)" "$uid"

say "Every container has a range of its own"
run fief run --rm debian cat /proc/self/uid_map
run fief run --rm debian cat /proc/self/uid_map

say "The image is stored once; what container root writes is stored as id 0"
run fief exec vassal sh -c 'echo mine >/root/note; chown www-data /root/note; touch /srv/of-root'
find "$work/data/uppers" -name of-root -printf 'on disk: owner %U, %p\n' | sed "s|$work|…|"
same "owner on disk" "$(find "$work/data/uppers" -name of-root -printf %U)" 0

say "A map of one's own: container 0 is host 1000, and nobody else"
run fief run --rm --uidmap 0:1000:1 --gidmap 0:1000:1 debian cat /proc/self/uid_map

say "Whose is that id? The host knows again"
run fief ids who "$uid"
fief ids who "$uid" | grep -q 'uid 0 (root) in container vassal' || { echo "demo: the id is not found again" >&2; exit 1; }
run fief ids

say "Two containers in one network and pid namespace, with sysfs, proc and mqueue of the right one"
run fief run --rm --network container:vassal --pid container:vassal debian sh -c 'ls /sys/class/net; tr "\0" " " </proc/1/cmdline; echo'
refused fief run --rm --network host debian true

say "A host directory bound in: container root cannot touch it"
mkdir -p "$work/hostbin" && cp /bin/sh "$work/hostbin/sh"
before=$(stat -c '%Y %s' "$work/hostbin/sh")
refused fief run --rm -v "$work/hostbin:/host/bin" debian mv /host/bin/sh /host/bin/old
same "the host's file" "$(stat -c '%Y %s' "$work/hostbin/sh")" "$before"

say "The host's own /usr as the image: nothing pulled, nothing stored"
run fief run --rm host cat /etc/os-release /etc/passwd
refused fief run --rm host touch /usr/bin/mine

say "The daemon is killed; containers go on and are found again"
run kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
start
run fief ps
same "pid after the restart" "$(fief inspect -f '{{.State.Pid}}' vassal)" "$pid"
run fief exec vassal cat /root/note

say "Stopped, it gets other ids; its files stay what they were"
run fief stop -t 1 vassal
run fief update --uidmap 0:700000:65536 vassal
run fief start vassal
run fief exec vassal sh -c 'cat /proc/self/uid_map; stat -c "%U %n" /root/note'
same "owner under the new map" "$(fief exec vassal stat -c %U /root/note)" www-data
run fief rm -f vassal

if command -v docker >/dev/null; then
	say "An unmodified docker client"
	export DOCKER_HOST=$FIEF_HOST
	run docker run --rm debian id -u
	run docker info --format '{{.SecurityOptions}}'
fi
say "Done."
