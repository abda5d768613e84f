#!/usr/bin/env bash
# run.sh [SUITE…]: boots the kernel of each Debian suite (default: those of
# Debian 12, 13 and sid) in qemu, without KVM, runs there what tests.txt lists, compiled
# here, and rewrites the tables of docs/kernel.md. Everything lies below .cache/vm.
#   VM_TESTS=$'package [regexp [without]]\n…' VM_LIMIT=seconds narrow a run, and so does
#   VM_UNTIL=seconds, after which no package is begun; VM_SCRIPT=file is run
#   at its end, with a daemon up, and its output is in out/script. VM_KEEP=yes takes the
#   tests as the last run compiled them.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "making a Debian root needs root" >&2; exit 1; }
[ $# -gt 0 ] || set -- bookworm trixie sid
here=$PWD/.cache/vm
mkdir -p "$here"
command -v qemu-system-x86_64 >/dev/null || apt-get install -y -qq --no-install-recommends qemu-system-x86 >/dev/null

tests=${VM_TESTS:-$(grep -v '^#' test/vm/tests.txt)}
packages=$(awk '{print $1}' <<<"$tests")
limit=${VM_LIMIT:-900}

# The second disk: the tree, its binaries, and each package's tests, compiled.
disk() {
	[ -n "${VM_KEEP:-}" ] || rm -rf "$here/stage"
	mkdir -p "$here/stage/src/bin"
	git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - 2>/dev/null | tar -C "$here/stage/src" -xf -
	cp bin/fief bin/fiefd bin/fief-mon bin/fief-oci "$here/stage/src/bin/"
	go build -ldflags '-s -w' -o "$here/stage/src/bin/abilities" ./test/vm/abilities
	CGO_ENABLED=0 go build -ldflags '-s -w' -o "$here/stage/src/bin/hoard" ./test/accounting/hoard
	! docker=$(command -v docker) || cp "$docker" "$here/stage/src/bin/" # scripts use it; it is static
	go build -o "$here/ledger" ./test/ledger
	for p in $packages; do
		[ -z "${VM_KEEP:-}" ] || [ ! -e "$here/stage/src/$p/vm.test" ] || continue
		go test -c -ldflags '-s -w' -o "$here/stage/src/$p/vm.test" "./$p"
	done
	make -s install DESTDIR="$here/stage/install" >/dev/null
	cp test/vm/inside.sh "$here/stage/"
	printf 'limit=%q\nuntil=%q\n' "$limit" "${VM_UNTIL:-}" >"$here/stage/options"
	printf '%s\n' "$tests" >"$here/stage/tests"
	[ -z "${VM_SCRIPT:-}" ] || cp "$VM_SCRIPT" "$here/stage/script.sh"
}

# boot SUITE: one machine, to its end. Serial line to SUITE/console.
boot() {
	local dir=$here/$1
	rm -f "$dir/work.img"
	truncate -s 3G "$dir/work.img"
	mkfs.ext4 -q -F -d "$here/stage" "$dir/work.img"
	nice -n 10 timeout "${VM_TIME:-3000}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp "${VM_CPUS:-2}" -m 2G -nodefaults -display none \
		-serial stdio -kernel "$dir/vmlinuz" -initrd "$dir/initrd" \
		-append "console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=0 systemd.journald.forward_to_console=0" \
		-drive file="$dir/disk.img",if=virtio,format=raw,snapshot=on,cache=unsafe \
		-drive file="$dir/work.img",if=virtio,format=raw,cache=unsafe </dev/null | tee "$dir/console"
	grep -q '^vm: .*: done' "$dir/console" || { echo "vm: $1 did not come to its end" >&2; return 1; }
}

# judge SUITE: what the tests said, against the skips that are allowed.
judge() {
	local dir=$here/$1 p
	rm -rf "$dir/out"
	debugfs -R "rdump /out $dir" "$dir/work.img" 2>/dev/null
	for p in $packages test/vm; do
		if [ ! -e "$dir/out/${p//\//+}" ]; then
			printf '=== RUN   TestLeftOut\n--- FAIL: TestLeftOut (0.00s)\nFAIL\n' | go tool test2json -p "fief/$p"
			continue
		fi
		go tool test2json -p "fief/$p" <"$dir/out/${p//\//+}"
	done | "$here/ledger" test/vm/skips.txt | tee "$dir/out/result"
}

disk
status=0
for suite; do
	test/vm/base.sh "$suite"
	boot "$suite" && judge "$suite" || status=1
done
[ -n "${VM_TESTS:-}" ] || test/vm/table.sh
exit $status
