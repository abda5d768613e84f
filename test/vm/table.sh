#!/usr/bin/env bash
# table.sh: rewrites the tables of docs/kernel.md from what each virtual machine
# printed in its last run, the oldest kernel first.
set -euo pipefail
cd "$(dirname "$0")/../.."
mapfile -t outs < <(for f in .cache/vm/*/out/abilities; do
	printf '%s %s\n' "$(awk -F'\t' '$1 == "kernel" {print $2}' "$f")" "$(dirname "$f")"
done | sort -V | cut -d' ' -f2)

tables() {
	printf '| |'
	for o in "${outs[@]}"; do printf ' %s, Debian %s |' "$(awk -F'\t' '$1 == "kernel" {print $2}' "$o/abilities")" "$(basename "$(dirname "$o")")"; done
	printf '\n|---|'
	printf '%.0s---|' "${outs[@]}"
	printf '\n'
	row 'tests in it' "$(for o in "${outs[@]}"; do echo "$(tail -n 1 "$o/result"), of $(grep -c '^\(pass\|fail\) ' "$o/result") packages"; done)"
	row 'cgroup' "$(for o in "${outs[@]}"; do awk -F'\t' '$1 == "cgroup" {print $2}' "$o/abilities"; done)"
	awk -F'\t' '$1 == "way" && $3 == "" {print $2}' "${outs[0]}/abilities" | while read -r fs; do
		row "way on $fs" "$(for o in "${outs[@]}"; do awk -F'\t' -v fs="$fs" '$1 == "way" && $2 == fs && $3 == "" {print $4}' "$o/abilities"; done)"
	done
	printf '\n| fief uses | since | for | %s\n|---|---|---|' "$(for o in "${outs[@]}"; do printf '%s | ' "$(awk -F'\t' '$1 == "kernel" {print $2}' "$o/abilities")"; done)"
	printf '%.0s---|' "${outs[@]}"
	printf '\n'
	awk -F'\t' '$1 == "ability" {
		if (!($2 in seen)) { order[++n] = $2; seen[$2] = "| " $2 " | " $3 " | " $4 " |" }
		seen[$2] = seen[$2] " " $5 " |"
	} END { for (i = 1; i <= n; i++) print seen[order[i]] }' "${outs[@]/%//abilities}"
}

# row NAME CELLS: a line of the table, one cell for each line of CELLS.
row() { printf '| %s |' "$1"; sed 's/.*/ & |/' <<<"$2" | tr -d '\n'; printf '\n'; }

page=docs/kernel.md
new=$(tables)
awk -v new="$new" '/^<!-- tables -->$/ {print; print new; skip = 1; next} /^<!-- end -->$/ {skip = 0} !skip' "$page" >"$page.new"
mv "$page.new" "$page"
