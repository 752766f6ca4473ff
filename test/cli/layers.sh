#!/bin/sh
# tools/layers must refuse an upper layer and a sibling, and let the one agreed exception through.
set -eu
layers=$1
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

try() { # try WANTED-EXIT FILE INCLUDED
    rm -rf "$tree/src"
    mkdir -p "$tree/src/${2%/*}"
    printf '#include "%s"\n' "$3" >"$tree/src/$2"
    rc=0
    "$layers" "$tree" >"$tree/out" || rc=$?
    if [ "$rc" != "$1" ]; then
        echo "src/$2 including $3: exit $rc, expected $1"
        cat "$tree/out"
        exit 1
    fi
}

try 0 hca/rc.c wire/bth.h
try 0 hca/rc.c hca/qp.h
try 0 bond/select.c hca/steering.h
try 1 bond/select.c hca/hca.h
try 1 wire/bth.c hca/hca.h
try 1 ctl/server.c watch/watch.h
try 1 sim/world.c verbs/device.h
try 1 unheard/of.c base/when.h
