#!/bin/sh
# Does docs/verbs.md speak of every symbol that librbond exports, every function of <infiniband/verbs.h>, and every
# event, type and flag that the header has? table.sh DOCS MAP HEADER
docs=$1 map=$2 header=$3
missing=0
need() {
    grep -qF "\`$1\`" "$docs" && return
    echo "docs/verbs.md says nothing of $1 ($2)"
    missing=$((missing + 1))
}
symbols=$(grep -oE '\b_?(ibv|mlx5dv|rbonddv)_[a-z0-9_]+;' "$map" | tr -d ';')
functions=$(grep -oE '\b_?ibv_[a-z0-9_]+ *\(' "$header" | tr -d ' (' | sort -u | grep -vE '^(ibv_cmd_|ibv_query_port_compat)')
options=$(grep -oE '\bIBV_(EVENT|QPT|SEND|WR|ACCESS|QP_CREATE|QP_INIT_ATTR|CREATE_CQ_ATTR)_[A-Z0-9_]+' "$header" |
    sort -u | grep -vE 'OPTIONAL|RESERVED|_WR_TAG_')
# A check that finds nothing to check is broken itself.
[ "$(echo "$symbols" | wc -l)" -ge 60 ] && [ "$(echo "$functions" | wc -l)" -ge 120 ] &&
    [ "$(echo "$options" | wc -l)" -ge 50 ] || { echo "table.sh: cannot read $map or $header"; exit 1; }
for name in $symbols; do need "$name" librbond.map; done
for name in $functions; do need "$name" verbs.h; done
for name in $options; do need "$name" verbs.h; done
[ "$missing" = 0 ]
