#!/usr/bin/env bash
# run.sh [SUITE…]: boots the kernel of each Debian suite (default: those of
# Debian 12, 13 and sid) in qemu, without KVM, runs there what tests.txt lists, compiled
# here, and rewrites the tables of docs/kernel.md. Everything lies below .cache/vm.
#   VM_WHOLE=yes takes the long lines of tests.txt too, and no test in short. VM_LIMIT
#   is what a package may take in seconds, VM_UNTIL after how many none is begun
#   (1800, with VM_WHOLE without end): what is left out or cut off has failed.
#   VM_TESTS=$'package [regexp [without]]\n…' narrows a run; VM_SCRIPT=file is run
#   at its end, with a daemon up, and its output is in out/script. VM_KEEP=yes takes the
#   binaries and tests as the last run compiled them.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "making a Debian root needs root" >&2; exit 1; }
[ $# -gt 0 ] || set -- bookworm trixie sid
here=$PWD/.cache/vm
mkdir -p "$here"
command -v qemu-system-x86_64 >/dev/null || apt-get install -y -qq --no-install-recommends qemu-system-x86 >/dev/null

tests=$(grep -v '^#' test/vm/tests.txt | grep .)
if [ -n "${VM_WHOLE:-}" ]; then
	tests=$(awk '{long = sub(/^\+/, "")} long || !($1 in line) {line[$1] = $0} !seen[$1]++ {order[++n] = $1}
		END {for (i = 1; i <= n; i++) print line[order[i]]}' <<<"$tests")
else
	tests=$(grep -v '^+' <<<"$tests")
fi
tests=${VM_TESTS:-$tests}
until=${VM_UNTIL-$([ -n "${VM_WHOLE:-}" ] || echo 1800)}
packages=$(awk '{print $1}' <<<"$tests")
compiled=$(grep -vx test/vm <<<"$packages" || true) # that one is a script
limit=${VM_LIMIT:-900}

# The second disk: the tree, its binaries, and each package's tests, compiled.
disk() {
	local src=$here/stage/src
	[ -n "${VM_KEEP:-}" ] || rm -rf "$here/stage"
	mkdir -p "$src/bin"
	git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - 2>/dev/null | tar -C "$src" -xf -
	if [ ! -d "$here/stage/install" ]; then
		cp bin/fief bin/fiefd bin/fief-mon bin/fief-oci "$src/bin/"
		go build -ldflags '-s -w' -o "$src/bin/abilities" ./test/vm/abilities
		CGO_ENABLED=0 go build -ldflags '-s -w' -o "$src/bin/hoard" ./test/accounting/hoard
		! docker=$(command -v docker) || cp "$docker" "$src/bin/" # scripts use it; it is static
		go build -o "$here/ledger" ./test/ledger
		make -s install DESTDIR="$here/stage/install" >/dev/null
	fi
	for p in $compiled; do
		[ -e "$src/$p/vm.test" ] || CGO_ENABLED=0 go test -c -ldflags '-s -w' -o "$src/$p/vm.test" "./$p"
	done
	cp test/vm/inside.sh "$here/stage/"
	rm -f "$here/stage/script.sh"
	printf 'limit=%q\nuntil=%q\nwhole=%q\n' "$limit" "$until" "${VM_WHOLE:-}" >"$here/stage/options"
	printf '%s\n' "$tests" >"$here/stage/tests"
	[ -z "${VM_SCRIPT:-}" ] || cp "$VM_SCRIPT" "$here/stage/script.sh"
}

# boot SUITE: one machine, to its end. Serial line to SUITE/console.
boot() {
	local dir=$here/$1
	rm -f "$dir/work.img"
	truncate -s 3G "$dir/work.img"
	mkfs.ext4 -q -F -d "$here/stage" "$dir/work.img"
	# An emulated rep movsb goes byte by byte, and what guards the kernel from user
	# memory ends a translated block: without them a run takes a fifth less.
	nice -n "${VM_NICE:-5}" timeout "${VM_TIME:-$([ -n "${VM_WHOLE:-}" ] && echo 14400 || echo 3000)}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max,-erms,-fsrm,-smap,-la57 -smp "${VM_CPUS:-2}" -m 2G -nodefaults -display none \
		-serial stdio -kernel "$dir/vmlinuz" -initrd "$dir/initrd" \
		-append "console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=0 systemd.journald.forward_to_console=0" \
		-drive file="$dir/disk.img",if=virtio,format=raw,snapshot=on,cache=unsafe \
		-drive file="$dir/work.img",if=virtio,format=raw,cache=unsafe </dev/null | tee "$dir/console"
	grep -q '^vm: .*: done' "$dir/console" || { echo "vm: $1 did not come to its end" >&2; return 1; }
}

# said SUITE PACKAGE: what its tests printed. What was left out, or cut off before
# its result, has failed.
said() {
	local out=$here/$1/out/${2//\//+}
	if [ ! -e "$out" ]; then
		printf '=== RUN   TestLeftOut\n--- FAIL: TestLeftOut (0.00s)\nFAIL\n'
	elif grep -aqE '^.?(PASS|FAIL)$' "$out"; then
		cat "$out"
	else
		grep -av '^SIGQUIT' "$out"
		printf '\n\026=== RUN   TestCutOff\n\026--- FAIL: TestCutOff (0.00s)\n\026FAIL\n' # marked as -test.v=test2json does
	fi
}

# judge SUITE: what the tests said, against the skips that are allowed there.
judge() {
	local dir=$here/$1 p
	rm -rf "$dir/out"
	debugfs -R "rdump /out $dir" "$dir/work.img" 2>/dev/null
	awk -v suite="$1" '!/^@/ {print; next} index("," substr($1, 2) ",", "," suite ",") {sub(/^[^ ]* /, ""); print}' test/vm/skips.txt >"$dir/skips"
	for p in $packages; do said "$1" "$p" | go tool test2json -p "fief/$p"; done | "$here/ledger" "$dir/skips" | tee "$dir/out/result"
}

disk
status=0
for suite; do
	test/vm/base.sh "$suite"
	boot "$suite" && judge "$suite" || status=1
done
[ -n "${VM_TESTS:-}" ] || test/vm/table.sh
exit $status
