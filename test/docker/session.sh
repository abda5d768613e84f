#!/usr/bin/env bash
# A session of an unmodified docker client with fiefd. Needs DOCKER_HOST,
# REGISTRY (host:port of a registry that holds busybox:latest), ROOTFS (a
# directory) and ARCHIVE (of docker save); leaves files where it is run. Stops
# at the first thing that is not as a docker user expects it. Every step is
# traced to stderr, so that a hang shows where it is.
set -euo pipefail
exec {BASH_XTRACEFD}>&2
set -x

fail() { echo "session: $*" >&2; exit 1; }
# want WHAT GOT PATTERN
want() { [[ $2 =~ $3 ]] || fail "$1: got '$2', want /$3/"; }
# code WANTED CMD…
code() {
	local want=$1 got=0
	shift
	"$@" >said.$BASHPID 2>&1 || got=$?
	[ "$got" = "$want" ] || fail "$*: exit $got, want $want: $(cat said.$BASHPID)"
	rm -f said.$BASHPID
}
trap 'docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1 || true' EXIT

want version "$(docker version --format '{{.Server.APIVersion}}')" '^1\.51$'
want info "$(docker info --format '{{.SecurityOptions}}')" 'name=userns'
want "info text" "$(docker info 2>&1)" 'userns'

want pull "$(docker pull "$REGISTRY/busybox")" 'Status: Downloaded newer image'
want "pull again" "$(docker pull "$REGISTRY/busybox")" 'Status: Image is up to date'
docker tag "$REGISTRY/busybox" busybox
want images "$(docker images --format '{{.Repository}}:{{.Tag}}')" 'busybox:latest'

want "run --rm" "$(docker run --rm busybox id)" '^uid=0\(root\) gid=0\(root\)'
want "pipe in" "$(echo through | docker run --rm -i busybox cat)" '^through$'
want "run -it" "$(script -qec 'docker run --rm -it busybox tty' /dev/null | tr -d '\r')" '/dev/pts/0'
want "two streams" "$(docker run --rm busybox sh -c 'echo out; echo err >&2' 2>/dev/null)" '^out$'
code 42 docker run --rm busybox sh -c 'exit 42'
code 127 docker run --rm busybox no-such-command
code 126 docker run --rm busybox /etc/passwd
code 125 docker run --rm no-such-image:tag
code 137 docker run --rm busybox sh -c 'sh -c "kill -9 \$\$"; exit $?'

begun=$(date +%s)
id=$(docker run -d --name web -e GREETING=hello -w /tmp busybox sh -c 'i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done')
want "run -d" "$id" '^[0-9a-f]{64}$'
want "ps -a" "$(docker ps -a --format '{{.Names}} {{.Image}} {{.Status}}')" '^web busybox Up '
want "ps table" "$(docker ps)" '^CONTAINER ID'
pid=$(docker inspect -f '{{.State.Pid}}' web)
[ -d "/proc/$pid" ] || fail "inspect names pid $pid, which does not run"
uid=$(awk '/^Uid:/{print $2}' "/proc/$pid/status")
[ "$uid" -ge 65536 ] || fail "container root is host uid $uid"
docker exec web sh -c 'echo 12345 >/root/file'
want "ps -s" "$(docker ps -s --format '{{.Size}}')" '^6B \(virtual [0-9.]+MB\)$'
want "inspect -s" "$(docker inspect -s -f '{{.SizeRw}}' web)" '^6$'
want top "$(docker top web)" "$uid|line"
want "exec" "$(docker exec web sh -c 'echo $GREETING; pwd')" $'^hello\n/tmp$'
want "exec -it" "$(script -qec 'docker exec -it web tty' /dev/null | tr -d '\r')" '/dev/pts/'
code 3 docker exec web sh -c 'exit 3'
want logs "$(docker logs --tail 3 web)" 'line [0-9]+'
want "logs -f" "$(timeout 2 docker logs -f web || true)" $'line 0\nline 1\n'
# On SIGTERM the client lets go of the streams and then waits for the
# container's end (docker/cli: RunAttach, getExitStatus); so it does with dockerd.
want attach "$(timeout -s KILL 2 docker attach --no-stdin --sig-proxy=false web || true)" 'line [0-9]+'
(sleep 1; docker kill web >/dev/null) &
want wait "$(docker wait web)" '^137$'
wait
want "exit code" "$(docker inspect -f '{{.State.ExitCode}} {{.State.Status}}' web)" '^137 exited$'
docker start web >/dev/null
docker stop -t 0 web >/dev/null
sleep 1 # so that the events' second is over
want events "$(docker events --since "$begun" --until "$(date +%s)" --filter container=web --format '{{.Action}}' | tr '\n' ,)" \
	'^create,start,exec_create: sh -c .*,exec_start: sh -c .*,exec_die,.*top,.*attach,kill,die,start,kill,kill,die,stop,$'
want "events of exec" "$(docker events --since "$begun" --until "$(date +%s)" --filter event=exec_die --format '{{.Actor.Attributes.exitCode}}')" $'\n3$'
want "rmi of a second name" "$(docker rmi "$REGISTRY/busybox")" '^Untagged: '
code 1 docker rmi busybox
docker rm web >/dev/null
code 1 docker inspect web

# Terminals: detach, attach to the running one, exit.
(sleep 1; printf '\020\021'; sleep 1) | script -qec 'docker run -it --name term busybox sh' /dev/null >/dev/null
want "detached" "$(docker ps --format '{{.Names}} {{.Status}}')" '^term Up '
(sleep 1; echo 'exit 6'; sleep 1) | code 6 script -qec 'docker attach term' /dev/null
docker start term >/dev/null
docker rm -f term >/dev/null

# Half-closed input, much output, many at once, an end while a signal is sent.
want "output after the end of input" "$(echo x | docker run --rm -i busybox sh -c 'cat; sleep 0.3; echo after')" $'^x\nafter$'
head -c 30000000 /dev/urandom >big
sum=$(sha256sum <big)
want "big run" "$(docker run --rm -i busybox cat <big | sha256sum)" "^$sum\$"
docker run -d --name sleeper busybox sleep 1000 >/dev/null
want "big exec" "$(docker exec -i sleeper cat <big | sha256sum)" "^$sum\$"
docker rm -f sleeper >/dev/null
parallel=()
for i in {1..20}; do
	code $((i % 5)) docker run --rm busybox sh -c "exit $((i % 5))" &
	parallel+=($!)
done
for pid in "${parallel[@]}"; do wait "$pid"; done
for i in {1..10}; do
	docker run -d --name brief busybox sleep 1000 >/dev/null
	docker rm -f brief >/dev/null
done
code 125 docker run --network no-such busybox true

docker run --name once busybox true
want "ps of an ended one" "$(docker ps -a --format '{{.Names}} {{.Status}}')" '^once Exited \(0\)'
docker rm once >/dev/null

tar -C "$ROOTFS" -cf image.tar .
docker import image.tar imported >/dev/null
want "run imported" "$(docker run --rm imported echo yes)" '^yes$'
docker rmi imported >/dev/null
want load "$(docker load -i "$ARCHIVE")" 'Loaded image: archived:latest'
want "run loaded" "$(docker run --rm archived echo loaded)" '^loaded$'

# Save: what comes back has the same id and names; the client's own words.
id=$(docker images -q --no-trunc archived)
docker tag archived archived:two
docker save -o saved.tar archived:latest archived:two
docker save archived:latest archived:two | cmp - saved.tar || fail "two archives of the same images differ"
docker save "$id" >nameless.tar
docker rmi archived:latest archived:two >/dev/null
want "load saved" "$(docker load -i saved.tar | sort | tr '\n' ,)" '^Loaded image: archived:latest,Loaded image: archived:two,$'
want "id after save and load" "$(docker images -q --no-trunc archived:two)" "^$id\$"
docker rmi archived:latest archived:two >/dev/null
want "load by id" "$(docker load -i nameless.tar)" "Loaded image ID: $id"
code 1 docker save no-such-image
want "save of a missing one" "$(docker save no-such-image 2>&1 || true)" '^Error response from daemon: No such image: no-such-image:latest$'
want "save to a terminal" "$(script -qec 'docker save busybox' /dev/null | tr -d '\r' || true)" 'cowardly refusing to save to a terminal'
# Volumes.
want "volume create" "$(docker volume create --label a=b data)" '^data$'
want "volume of a driver" "$(docker volume create --driver odd xyz 2>&1 || true)" 'plugin "odd" not found'
docker run -d --name keeps -v data:/data -v /cache busybox sh -c 'echo row >/data/table; chown 999:998 /data/table; touch /tmp/ready; sleep 1000' >/dev/null
docker exec keeps sh -c 'until test -e /tmp/ready; do sleep 0.1; done'
want "another range" "$(docker run --rm -v data:/d:ro --security-opt userns=auto busybox sh -c 'cat /d/table; stat -c %u:%g /d/table')" $'^row\n999:998$'
want "volume ls" "$(docker volume ls --filter name=data --format '{{.Driver}} {{.Name}} {{.Labels}}')" '^local data a=b$'
want "volume inspect" "$(docker volume inspect -f '{{.Mountpoint}} {{.Scope}}' data)" '/volumes/data/_data local$'
want "mounts" "$(docker inspect -f '{{range .Mounts}}{{.Type}} {{.Driver}} {{.Destination}} {{.Mode}} {{.RW}},{{end}}' keeps)" 'volume local /data z true,'
want "binds" "$(docker inspect -f '{{.HostConfig.Binds}} {{.Config.Volumes}}' keeps)" '^\[data:/data\] map\[/cache:\{\}\]$'
want "ps of a volume" "$(docker ps --filter volume=data --format '{{.Names}}')" '^keeps$'
want "in use" "$(docker volume rm data 2>&1 || true)" 'remove data: volume is in use - \[[0-9a-f]{64}\]'
want "volumes from" "$(docker run --rm --volumes-from keeps:ro busybox sh -c 'cat /data/table; touch /data/x' 2>&1 || true)" 'Read-only file system'
want "subpath" "$(docker run --rm --mount type=volume,src=data,dst=/d,volume-subpath=no busybox true 2>&1 || true)" 'cannot access path .*: no such file or directory'
want "image mount" "$(docker run --rm --mount type=image,src=busybox,dst=/i busybox stat -c %u /i/bin/busybox)" '^0$'
docker volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m,mode=700 scratch >/dev/null
want "tmpfs volume" "$(docker run --rm -v scratch:/s busybox stat -c '%a %u' /s)" '^700 0$'
echo copied >note
docker cp note keeps:/data/note
want "df" "$(docker system df -v --format '{{range .Volumes}}{{.Name}} {{.Links}} {{.Size}},{{end}}')" 'data 1 11B,'
docker rm -fv keeps >/dev/null
want "volume events" "$(docker events --since 10m --until "$(date +%s)" --filter volume=data --format '{{.Action}}' | sort -u | tr '\n' ,)" '^create,mount,unmount,$'
want "anonymous is gone" "$(docker volume ls -q)" $'^data\nscratch$'
want "prune" "$(docker volume prune -f)" 'Total reclaimed space: 0B'
want "prune all" "$(docker volume prune -af)" $'data\nscratch'
want "rmi" "$(docker rmi busybox)" 'Deleted: sha256:'
want "nothing left" "$(docker images -q)$(docker ps -aq)" '^$'
echo "session: all as expected"
