#!/usr/bin/env bash
# Builds the image for real and runs it as it is meant to run, without a container engine: `make container-test`.
#
#   1. A stand-in for the base image: Debian trixie by debootstrap, under the base image's name; kept for the next run.
#   2. The Dockerfile by buildah, and its slim target; its gpu target, where what Triton compiles is compiled and loaded, without a
#      GPU; once more up to its dependencies with a CPU index served here, to see that no CUDA gets in.
#   3. The image's own command as its own user in namespaces of their own: no network but loopback, the root file system
#      read-only. A photograph of 5 MB is classified; SIGTERM lets a request in flight finish. Run as `serve`, and with a port in
#      its environment, it listens there, and its health check finds it.
#
# Needs root (chroot, mounts, namespaces), a Debian with apt-get, its package mirror and a Python registry as this machine has
# them configured, and `make venv`. It tests the image, not the service: what the answers should be is tested elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
STATE=${CONTAINER_TEST_DIR:-/var/tmp/sknet-container-test} # remove it to make the base anew
KEEP=${KEEP:-}                                             # 1: keep the image and its layers (20 GB); a second run is quick
EXPECT=${EXPECT:-cat}                                      # what the photograph shows; a default for the bundled checkpoint
BASE=python:3.13-slim
IMAGE=sknet-serve:test
SLIM_IMAGE=sknet-serve:test-slim
GPU_IMAGE=sknet-serve:test-gpu
CPU_IMAGE=sknet-serve:test-cpu-dependencies
URL=http://127.0.0.1:8000
READY_S=180 # to a warmed model, on a busy machine
DRAIN_S=30  # docker-compose.yml's stop_grace_period

say() { printf '== %s\n' "$*"; }
die() { printf 'container-test: %s\n' "$*" >&2; exit 1; }
b() { buildah --root "$STATE/$DRIVER" --runroot "$RUNROOT" --storage-driver "$DRIVER" "$@"; }
of_image() { # an entry of the image's configuration, a list line by line
    b inspect --type image $IMAGE | "$PYTHON" -c 'import json, sys
value = json.load(sys.stdin)["Docker"]["config"]
for key in sys.argv[1].split("."):
    value = value[key]
print(*([] if value is None else [value] if isinstance(value, str) else value), sep="\n", end="\n" if value else "")' "$1"
}

# ---------------------------------------------------------------------------------------------------------------- building

check_machine() {
    [ "$(id -u)" = 0 ] || die "needs root: it mounts file systems and changes into them"
    "$PYTHON" -c 'import skimage' || die "$PYTHON has no scikit-image: make venv"
    local package missing=()
    for package in buildah debootstrap curl iproute2; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing ${missing[*]}"
        timeout 300 apt-get update -qq
        DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
    fi
    mkdir -p "$STATE"
    exec 9>"$STATE/lock"
    flock -n 9 || die "another run holds $STATE"
    DRIVER=overlay
    b info >/dev/null 2>&1 || DRIVER=vfs # every layer is then a copy of the whole
    local need=32 free
    [ $DRIVER = overlay ] || need=60
    free=$(df --output=avail -BG "$STATE" | tail -1 | tr -dc 0-9)
    [ "$free" -ge $need ] || die "needs $need GB free for CUDA's libraries ($DRIVER storage), $STATE has $free GB"
}

make_base() {
    if b inspect --type image $BASE >/dev/null 2>&1; then return; fi
    say "making the stand-in base"
    local mirror root=$STATE/base container
    # shellcheck disable=SC2016
    mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' | awk 'NR == 1')}
    [ -n "$mirror" ] || die "no Debian mirror among apt's sources: set MIRROR"
    rm -rf --one-file-system "$root"
    timeout 900 debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie "$root" "$mirror" \
        >"$STATE/debootstrap.log" 2>&1 || die "debootstrap failed, see $STATE/debootstrap.log"
    ln -s python3 "$root/usr/bin/python"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    container=$(b from scratch)
    b add --quiet "$container" "$root" / >/dev/null
    b config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd python3 "$container"
    b commit --quiet --rm --format docker "$container" $BASE >/dev/null
    rm -rf --one-file-system "$root"
}

# What of this machine's pip configuration means something elsewhere: where registries are, not where local folders are.
pip_configuration() {
    echo '[global]'
    local keys='index-url|extra-index-url|trusted-host|proxy|timeout|default-timeout'
    "$PYTHON" -m pip config list | sed -nE "s/^(global|install|:env:)\.($keys)='(.*)'\$/\2 = \3/p" |
        grep -v 'file:' | sort -u -t = -k 1,1 || true
    echo 'cert = /etc/ssl/certs/ca-certificates.crt'
}

build() {
    local tag=$1 certificates=${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
    shift
    pip_configuration >"$STATE/pip.conf"
    TMPDIR=$STATE/tmp timeout 2400 nice -n 10 buildah --root "$STATE/$DRIVER" --runroot "$RUNROOT" --storage-driver "$DRIVER" \
        bud --layers --format docker --isolation chroot --network host --pull-never --build-arg BASE=$BASE \
        --volume "$certificates:/etc/ssl/certs/ca-certificates.crt:ro" --volume "$STATE/pip.conf:/etc/pip.conf:ro" \
        --tag "$tag" "$@" . >"$STATE/build.log" 2>&1 || die "build failed, see $STATE/build.log: $(tail -20 "$STATE/build.log")"
}

# Wheels of torch's name and pinned versions as a CPU index has them, "+cpu" and all, but empty: the point is which files get in.
make_cpu_index() {
    "$PYTHON" - "$1" <<'PYTHON'
import pathlib, re, sys, zipfile

for name, version in re.findall(r"^(torch|torchvision)==([0-9.]+)", pathlib.Path("requirements.lock").read_text(), re.M):
    folder, stem = pathlib.Path(sys.argv[1], name), f"{name}-{version}+cpu"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"__version__ = '{version}+cpu'\n")
        wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}+cpu\n")
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
PYTHON
}

check_cpu_index() {
    say "building the dependencies from a CPU index"
    local index=$STATE/tmp/index port container found
    make_cpu_index "$index"
    "$PYTHON" -u -m http.server 0 --bind 127.0.0.1 --directory "$index" >"$STATE/tmp/index.log" 2>&1 &
    INDEX_PID=$!
    for _ in $(seq 50); do
        port=$(sed -nE 's/.* port ([0-9]+) .*/\1/p' "$STATE/tmp/index.log")
        [ -z "$port" ] || break
        sleep 0.1
    done
    build $CPU_IMAGE --target dependencies --build-arg TORCH_INDEX="http://127.0.0.1:$port/"
    kill "$INDEX_PID" && INDEX_PID=
    container=$(b from --pull-never $CPU_IMAGE)
    found=$(b run --isolation chroot "$container" -- /opt/venv/bin/python -c 'import importlib.metadata as m, torch
names = {d.name.lower() for d in m.distributions()}
print(torch.__version__, sorted(n for n in names if n.startswith(("nvidia", "cuda", "triton"))), "fastapi" in names)')
    [[ $found == *"+cpu [] True" ]] || die "CPU index: $found"
    b rm "$container" >/dev/null
}

check_compiler() { # what the engine `compile` needs on a GPU, as the image's user; a /tmp from which nothing can be run, as Docker's
    say "building the image for GPUs"
    local container found
    build $GPU_IMAGE --target gpu
    container=$(b from --pull-never $GPU_IMAGE)
    found=$(b run --isolation chroot --mount type=tmpfs,dst=/tmp,tmpfs-mode=1777,noexec "$container" -- python -c '
from model.engines import inductor
from triton.runtime.build import compile_module_from_src

inductor.check("cuda")
print(compile_module_from_src("""#include <Python.h>
static struct PyModuleDef it = {PyModuleDef_HEAD_INIT, "launcher", 0, -1, 0};
PyMODINIT_FUNC PyInit_launcher(void) { return PyModule_Create(&it); }""", "launcher").__file__)')
    [[ $found == /var/cache/sknet/inductor/triton/* ]] || die "compiled for a GPU: $found"
    b rm "$container" >/dev/null
    say "compiler  $found"
}

# ----------------------------------------------------------------------------------------------------------------- running

make_photograph() { # scikit-image's cat, as large as a camera's and with its noise, which is what makes such files 5 MB
    "$PYTHON" - "$1" <<'PYTHON'
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from skimage import data

image = np.asarray(Image.fromarray(data.chelsea()).resize((3200, 2128), Image.Resampling.BICUBIC), np.float32)
noisy = Image.fromarray((image + np.random.default_rng(0).normal(0, 8, (2128, 3200, 1))).clip(0, 255).astype(np.uint8))
for quality in range(95, 101):
    noisy.save(sys.argv[1], "JPEG", quality=quality)
    if Path(sys.argv[1]).stat().st_size >= 5_000_000:
        break
else:
    sys.exit("the photograph stays below 5 MB")
PYTHON
}

in_container() { # as the image's user unless options say otherwise; /tmp and the cache are all that is mounted writable
    b run --isolation chroot --network host --mount type=tmpfs,dst=/tmp,tmpfs-mode=1777,tmpfs-size=512m \
        --volume "$CACHE:/var/cache/sknet" "$@"
}

service_pid() { # the image user's first process that is not buildah's own wrapper; here there are no processes but ours
    local folder
    for folder in $(printf '%s\n' /proc/[0-9]* | sort -t / -k 3 -n); do
        [ "$(stat -c %u "$folder" 2>/dev/null)" = "${USER_ID%%:*}" ] || continue
        [[ $(readlink "$folder/exe") == */python* ]] || continue
        echo "${folder##*/}"
        return
    done
    die "no process of user $USER_ID"
}

check_unwritable() {
    local seen
    seen=$(in_container "$CONTAINER" -- python -c '
import os, tempfile
kernel, writable = {"/proc", "/sys", "/dev"}, set()
for folder, folders, _ in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in kernel]
    try:
        tempfile.TemporaryFile(dir=folder).close()
        writable.add(folder)
    except OSError:
        pass
print(*sorted(writable))')
    [ "$seen" = "/tmp /var/cache/sknet" ] || die "writable by the image's user: '$seen'"
    # shellcheck disable=SC2016
    seen=$(in_container --user 0 "$CONTAINER" -- sh -c \
        'for folder in / /etc /opt/venv /opt/app /usr /var; do touch $folder/x 2>&1; done' 2>/dev/null || true)
    [ "$(grep -c 'Read-only file system' <<<"$seen")" = 6 ] || die "root could write: $seen"
}

check_sigterm() { # while a photograph is still being sent, slowly
    local pid upload begun code
    pid=$(service_pid)
    curl -sS --max-time 60 --limit-rate 1M -H 'Expect:' -o "$WORK/last.json" -w '%{http_code}' -F "file=@$WORK/photo.jpg" \
        "$URL/classify" >"$WORK/last.status" 2>"$WORK/last.error" &
    upload=$!
    sleep 2
    kill -0 $upload 2>/dev/null || die "the request was answered before the signal: nothing was in flight"
    begun=$(date +%s%N)
    kill -TERM "$pid"
    wait $upload || die "the request in flight was cut off: $(cat "$WORK/last.error")"
    [ "$(cat "$WORK/last.status")" = 200 ] || die "the request in flight got $(cat "$WORK/last.status"): $(cat "$WORK/last.json")"
    code=0
    timeout $DRAIN_S tail --pid="$SERVER" -f /dev/null || die "still running $DRAIN_S s after SIGTERM"
    wait "$SERVER" || code=$?
    [ $code = 0 ] || die "exit status $code after SIGTERM: $(tail -5 "$WORK/server.log")"
    say "SIGTERM: the request in flight got 200, exit 0 after $((($(date +%s%N) - begun) / 1000000)) ms"
}

check_port() { # PORT [OPTION...] -- [ARGUMENT...]: the entry point with these arguments, in a container with these options
    local port=$1 options=() pid begun code=0
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    begun=$(date +%s)
    in_container ${options[@]+"${options[@]}"} "$CONTAINER" -- "${ENTRY[@]}" "$@" >"$WORK/port.log" 2>&1 &
    SERVER=$!
    until curl -sf --max-time 2 -o /dev/null "http://127.0.0.1:$port/ping"; do
        kill -0 $SERVER 2>/dev/null || die "the service ended: $(tail -20 "$WORK/port.log")"
        [ $(($(date +%s) - begun)) -lt $READY_S ] || die "not on port $port in $READY_S s: $(tail -20 "$WORK/port.log")"
        sleep 0.1
    done
    in_container ${options[@]+"${options[@]}"} "$CONTAINER" -- "${HEALTH[@]:1}" >/dev/null || code=$?
    [ $code = 0 ] || die "the health check exits $code beside a service on port $port"
    pid=$(service_pid)
    kill -TERM "$pid"
    timeout $DRAIN_S tail --pid="$SERVER" -f /dev/null || die "still running $DRAIN_S s after SIGTERM"
    wait "$SERVER" || code=$?
    [ $code = 0 ] || die "exit status $code after SIGTERM: $(tail -5 "$WORK/port.log")"
    say "port      $port: ${options[*]:-as it is} ${*:-}"
}

inside() { # process 1 of the namespaces: whatever is mounted or started here ends with it
    ip link set lo up
    mkdir -p "$WORK" "$CACHE"
    USER_ID=$(of_image User)
    case $USER_ID in 0 | 0:* | root* | '') die "the image's user is '$USER_ID'" ;; esac
    chown "$USER_ID" "$CACHE"
    make_photograph "$WORK/photo.jpg"
    mapfile -t ENTRY < <(of_image Entrypoint)
    mapfile -t COMMAND < <(of_image Entrypoint && of_image Cmd)
    mapfile -t HEALTH < <(of_image Healthcheck.Test)
    [ "${HEALTH[0]:-}" = CMD ] || die "no health check in exec form: ${HEALTH[*]}"

    CONTAINER=$(b from --pull-never "$IMAGE")
    rm -rf "$CACHE" && mkdir -p "$CACHE" && chown "$USER_ID" "$CACHE" # the graph must come out of the image
    local root code=0 begun
    root=$(b mount "$CONTAINER")
    in_container "$CONTAINER" -- true # makes the mount points, while it still can
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount -t tmpfs -o mode=755 run "$root/run" # buildah keeps a file there; root's alone
    check_unwritable
    in_container "$CONTAINER" -- "${HEALTH[@]:1}" >/dev/null 2>&1 && die "the health check passes with nothing running"

    begun=$(date +%s%N)
    in_container "$CONTAINER" -- "${COMMAND[@]}" >"$WORK/server.log" 2>&1 &
    SERVER=$!
    until curl -sf --max-time 2 -o /dev/null "$URL/readyz"; do
        kill -0 $SERVER 2>/dev/null || die "the service ended: $(tail -20 "$WORK/server.log")"
        [ $(($(date +%s%N) - begun)) -lt $((READY_S * 1000000000)) ] ||
            die "not ready in $READY_S s: $(tail -20 "$WORK/server.log")"
        sleep 0.1
    done
    START_MS=$((($(date +%s%N) - begun) / 1000000))
    MEMORY=$(awk '/^VmRSS/ {print int($2 / 1024)}' "/proc/$(service_pid)/status")
    grep -q libtorch "/proc/$(service_pid)/maps" && die "the process that serves holds torch"
    [ ! -e "$CACHE/graphs" ] || die "the image brought no graph: one was exported"
    curl -sf --max-time 5 -o /dev/null http://127.0.0.2:8000/readyz || die "listens on one address only: useless when published"
    in_container "$CONTAINER" -- "${HEALTH[@]:1}" || code=$?
    [ $code = 0 ] || die "the health check exits $code beside a ready service"
    curl -sS --max-time 60 -o "$WORK/answer.json" -w '%{http_code}' -F "file=@$WORK/photo.jpg" "$URL/classify" >"$WORK/status"
    [ "$(cat "$WORK/status")" = 200 ] || die "classify: $(cat "$WORK/status") $(cat "$WORK/answer.json")"
    "$PYTHON" - "$WORK/answer.json" "$EXPECT" <<'PYTHON' || die "not a $EXPECT: $(cat "$WORK/answer.json")"
import json, sys
sys.exit(json.load(open(sys.argv[1]))["predictions"][0]["label"] != sys.argv[2])
PYTHON
    check_sigterm
    check_port 8080 -- serve # as SageMaker does
    check_port 9001 --env SKNET_PORT=9001 -- serve
    check_port 9002 --env SKNET_PORT=9002 --
    check_port 9003 --env AIP_HTTP_PORT=9003 -- # as Vertex AI does
    say "user      $USER_ID"
    say "image     $IMAGE_SIZE"
    say "build     $BUILD_S s"
    say "start     $START_MS ms to /readyz"
    say "memory    $MEMORY MiB resident once ready"
    say "photo     $(stat -c %s "$WORK/photo.jpg") bytes"
    say "answer    $(cat "$WORK/answer.json")"
}

# -------------------------------------------------------------------------------------------------------------------- order

clean_up() {
    [ -z "${INDEX_PID:-}" ] || kill "$INDEX_PID" 2>/dev/null || true
    [ -n "${DRIVER:-}" ] || return 0
    b rm --all >/dev/null 2>&1 || true
    if [ -z "${KEEP:-}" ]; then
        b rmi --force $IMAGE $SLIM_IMAGE $GPU_IMAGE $CPU_IMAGE >/dev/null 2>&1 || true
        b rmi --prune >/dev/null 2>&1 || true
    fi
    rm -rf --one-file-system "$STATE/tmp" "$STATE/run-inside"
}

if [ "${1:-}" = --inside ]; then
    RUNROOT=$STATE/run-inside WORK=$STATE/tmp/work CACHE=$STATE/tmp/cache
    export TMPDIR=$STATE/tmp
    IMAGE=$TRIED
    inside
    exit
fi

RUNROOT=$STATE/run
check_machine
trap clean_up EXIT
trap 'exit 130' INT TERM
clean_up
mkdir -p "$STATE/tmp"
make_base
check_cpu_index
say "building the image"
SECONDS=0
build $IMAGE
BUILD_S=$SECONDS
SECONDS=0
build $SLIM_IMAGE --target slim
SLIM_S=$SECONDS
check_compiler
export DRIVER STATE PYTHON EXPECT
for image in "$IMAGE $BUILD_S" "$SLIM_IMAGE $SLIM_S"; do
    read -r TRIED BUILD_S <<<"$image"
    IMAGE_SIZE=$(b images --format '{{.Size}}' "$TRIED")
    export TRIED BUILD_S IMAGE_SIZE
    say "running $TRIED"
    # /proc of its own, so that nothing outside can be signalled; --kill-child ends all of it with this script.
    timeout 600 unshare --mount --net --pid --fork --mount-proc --kill-child bash deploy/container-test.sh --inside
done
say "container-test passed"
