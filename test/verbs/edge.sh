#!/bin/sh
# Runs PROGRAM on rb_va under the preload, in a network namespace of its own with one veth pair and an
# rbondd: edge.sh RBONDD LIBRBOND PROGRAM. 77 (skipped) where no namespace can be made.
if [ -z "$EDGE_INSIDE" ]; then
    unshare -n true 2>/dev/null && exec env EDGE_INSIDE=1 unshare -n -- "$0" "$@"
    unshare -rn true 2>/dev/null && exec env EDGE_INSIDE=1 unshare -rn -- "$0" "$@"
    echo "edge.sh: no right to make a network namespace"
    exit 77
fi
set -e
dir=$(mktemp -d)
daemon=
cleanup() {
    [ -z "$daemon" ] || { kill "$daemon" 2>/dev/null && wait "$daemon" || :; }
    rm -rf "$dir"
}
trap cleanup EXIT
if [ -n "$EDGE_OWN_PLACE" ]; then
    unset RBOND_SOCKET # the namespace's own
    export XDG_RUNTIME_DIR="$dir"
else
    export RBOND_SOCKET="$dir/rbondd.sock"
fi
# An address that is looked for twice comes late, as an event in the midst of a test.
for conf in all default; do
    { echo 0 >/proc/sys/net/ipv6/conf/$conf/accept_dad; } 2>/dev/null || :
done
ip link set lo up
ip link add va type veth peer name vb
ip addr add 10.78.0.1/24 dev va
ip addr add 10.78.1.1/24 dev vb
ip link set va up
ip link set vb up
# await WHAT COMMAND...: until it succeeds; the kernel tells of carrier within a second or so.
await() {
    what=$1
    shift
    for i in $(seq 600); do
        "$@" && return
        sleep 0.05
    done
    echo "edge.sh: $what"
    cat "$dir/log" 2>/dev/null || :
    exit 1
}
has_carrier() { ip link show dev "$1" | grep -q "state UP"; }
listens() { grep -q "listens at" "$dir/log"; }
await "va has no carrier" has_carrier va
await "vb has no carrier" has_carrier vb
"$1" >"$dir/log" 2>&1 &
daemon=$!
export EDGE_DAEMON="$daemon" EDGE_RBONDD="$1"
await "rbondd does not start" listens
# A program built with a sanitizer wants its runtime first; the build says so by EDGE_PRELOAD.
[ -z "$EDGE_LIBRARIES" ] || export LD_LIBRARY_PATH="$EDGE_LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
if ! LD_PRELOAD="${EDGE_PRELOAD:+$EDGE_PRELOAD:}$2" "$3" rb_va; then
    cat "$dir/log"
    exit 1
fi
