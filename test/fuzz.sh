#!/usr/bin/env bash
# Runs every fuzz target for the given time each (default 30s). Making inputs smaller
# is cut short: up to a minute for each new one would leave no time for others.
set -euo pipefail
cd "$(dirname "$0")/.."
grep -rlE '^func Fuzz' --include='*_test.go' internal cmd test | sort | while read -r file; do
	for name in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$file"); do
		echo "== $(dirname "$file") $name"
		go test "./$(dirname "$file")" -run '^$' -fuzz "^$name\$" -fuzztime "${1:-30s}" -fuzzminimizetime 20x
	done
done
