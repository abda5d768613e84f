# make build  the four binaries, static, in bin/
# make demo   build, start an engine of its own and do the main job, told step by step (root)
# make test   the whole suite (root)
# make crash  the daemon killed at every failpoint and SEEDS times anywhere, and power cuts (root)
# make test-vm  the parts that ask the kernel, in virtual machines with Debian's own kernels (root)
# make test-oci  runtime-tools' validation suite against fief-oci, and crun and runc beside it (root)
# make test-compose  the stories of docker compose v2, which is built first: five minutes on two processors (root)
# make soak-ids  a million random operations on the pool of ids by processes that are killed (root)
# make soak-live  200 containers that write, under a daemon that is killed and replaced (root)
# make soak-run   10,000 runs, after which nothing may have grown (root)
# make soak-connect  CONNECTS times connected with a network and disconnected (root)
# make soak-names  containers that ask for names at 5,000 a second for half a minute (root)
# make race-fuzz  containers started for SECONDS in a root filesystem that others change meanwhile (root)
# make bench  medians of whole commands beside the floor and other engines, and of a small image (root)
# make bench-images  the same of a large image alone: pulls, first starts, commits (root, half an hour, 50 GB below TMPDIR)
SHELL := /bin/bash
export CGO_ENABLED := 0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
BINARIES := fief fiefd fief-mon fief-oci

# docker compose v2 is not in Debian 12. It is a module of its own: its thousand
# packages are no part of fief's.
COMPOSE := bin/compose/docker-compose

.PHONY: build install docs demo test test-oci test-compose race soak-ids soak-live soak-run soak-connect soak-names crash race-fuzz test-vm lint fuzz bench bench-images deps clean

build:
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(BINARIES))

# Man pages and completions, made from the commands themselves.
docs: build
	go run ./internal/cli/gen bin/share

PREFIX ?= /usr/local
install: docs
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(addprefix bin/,$(BINARIES))
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 bin/share/man1/*.1
	install -D -m 644 bin/share/completion/fief.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/fief
	install -D -m 644 bin/share/completion/fief.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_fief
	install -D -m 644 bin/share/completion/fief.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/fief.fish
	install -D -m 644 -t $(DESTDIR)/lib/systemd/system contrib/fief.service contrib/fief.socket

# What the tests, the demo and the bench need of Debian.
deps:
	test/deps.sh

demo: build
	test/deps.sh
	test/demo.sh

test: build lint
	test/deps.sh
	test/run.sh

race:
	test/deps.sh
	CGO_ENABLED=1 test/run.sh -race

# OPS: how many operations; the suite does a few seconds of them.
OPS ?= 1000000
soak-ids:
	FIEF_IDPOOL_OPS=$(OPS) go test ./internal/idpool -run TestKilledDaemonsNeverOverlap -count 1 -v -timeout 2h

# CONTAINERS: how many; PREVIOUS: a directory with fiefd and fief-mon of another
# build to change to and back, else this one's under another label.
CONTAINERS ?= 200
soak-live: build
	FIEF_SOAK_CONTAINERS=$(CONTAINERS) FIEF_PREVIOUS=$(PREVIOUS) go test ./test/soak -run TestLiveRestore -count 1 -v -timeout 1h

# RUNS: how many.
RUNS ?= 10000
soak-run: build
	FIEF_SOAK_RUNS=$(RUNS) go test ./test/soak -run TestRuns -count 1 -v -timeout 6h

# CONNECTS: how many; the suite does a hundred.
CONNECTS ?= 1000
soak-connect: build
	unshare --net sh -c 'ip link set lo up && FIEF_TEST_BUILT=1 FIEF_SOAK_CONNECTS=$(CONNECTS) go test ./test/network -run "TestConnect$$" -count 1 -v -timeout 2h'

# RATE: questions a second; the suite asks for three seconds.
RATE ?= 5000
soak-names: build
	unshare --net sh -c 'ip link set lo up && FIEF_TEST_BUILT=1 FIEF_DNS_SECONDS=30 FIEF_DNS_RATE=$(RATE) go test ./test/network -run TestNamesUnderLoad -count 1 -v -timeout 1h'

# SEEDS: how many kills, beyond one at each failpoint.
SEEDS ?= 1000
crash: build
	test/deps.sh
	FIEF_CRASH_SEEDS=$(SEEDS) go test ./test/crash -run 'TestKilledAtEveryPoint|TestPowerCuts' -count 1 -v -timeout 12h

# SECONDS: for how long.
race-fuzz: SECONDS := $(if $(filter command,$(firstword $(origin SECONDS))),$(SECONDS),600)
race-fuzz:
	FIEF_RACE_SECONDS=$(SECONDS) go test ./cmd/fief-oci -run 'TestRace$$' -count 1 -v -timeout 24h

# SUITES: whose kernel, half an hour each and more on a busy machine; VM_WHOLE=yes also
# runs what takes long. See test/vm/run.sh for narrowing a run.
SUITES ?= bookworm trixie sid
test-vm: build
	test/deps.sh
	test/vm/run.sh $(SUITES)

# UPDATE: 1 writes the table of docs/oci-conformance.md anew. ONLY: a regular
# expression of the programs' names.
test-oci: build
	test/deps.sh oci
	go run ./test/oci $(if $(UPDATE),-update) $(if $(ONLY),-only '$(ONLY)')

$(COMPOSE): test/compose/client/go.mod
	go build -C test/compose/client -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$$(cd test/compose/client && go list -m -f '{{.Version}}' github.com/docker/compose/v2)" -o $(CURDIR)/$@ github.com/docker/compose/v2/cmd

test-compose: build $(COMPOSE)
	test/deps.sh
	unshare --mount --net sh -c 'ip link set lo up && FIEF_TEST_BUILT=1 go test ./test/compose -count 1 -v -timeout 1h'

lint:
	@out=$$(gofmt -l cmd internal test); [ -z "$$out" ] || { echo "not gofmt-ed: $$out"; exit 1; }
	go vet ./...
	go tool staticcheck ./...

FUZZTIME ?= 30s
fuzz:
	test/fuzz.sh $(FUZZTIME)

bench: build
	test/deps.sh bench
	go run ./test/bench

# ROUNDS: pulls of each engine.
ROUNDS ?= 3
bench-images: build
	test/deps.sh bench
	go run ./test/bench -only pull -big -rounds $(ROUNDS)

clean:
	rm -rf bin
