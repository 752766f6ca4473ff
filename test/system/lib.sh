# Shared by the system tests: each brings its own lab up, under a name of its own, and removes it.
#   . "$(dirname "$0")/lib.sh"   takes the path of rbond off the words
#   system_begin [lab up words]
# shellcheck shell=bash
set -u

rbond=${1:?usage: $0 path/to/rbond [words]}
rbond=$(realpath "$rbond")
shift
lab=$(basename "$0")-$$
lab=${lab:0:31}
work=$(mktemp -d)
failures=0

# Instrumented builds run several times slower: time limits grow with them.
slow=1
if nm -D "$rbond" 2>/dev/null | grep -q __asan_init; then
    slow=5
fi

say() { echo "$(basename "$0"): $*"; }
complain() {
    say "FAILED: $*"
    failures=$((failures + 1))
}
die() {
    complain "$@"
    exit 1
}

# needs PROGRAM...: ends the test as skipped where one is missing
needs() {
    local program
    for program; do
        command -v "$program" >/dev/null && continue
        say "skipped: no $program"
        exit 77
    done
}

system_end() {
    local code=$?
    trap - EXIT
    [ -z "${flapper-}" ] || flap_end
    if [ "$failures" != 0 ] && [ -n "${lab_is_up-}" ]; then
        for host in a b; do
            "$rbond" lab exec --name "$lab" "$host" "$rbond" resource show qp 2>&1 | sed "s/^/  $host: /"
        done
        find "$(lab_dir)" -name '*.log' -exec tail -n 20 {} + 2>/dev/null
        for file in "$work"/*; do
            # Errors go to stderr, which is not buffered, and so come before the last lines.
            [ -f "$file" ] && { grep -aiE "error|fail|unable|sanitizer|got:" "$file" | head -n 8; tail -n 6 "$file"; } |
                cut -c 1-150 | sed "s|^|  ${file##*/}: |"
        done
    fi
    [ -z "${lab_is_up-}" ] || "$rbond" lab down --name "$lab" || failures=$((failures + 1))
    rm -rf "$work"
    [ "$failures" = 0 ] || code=1
    [ "$code" != 0 ] || say "passed"
    exit "$code"
}

lab_dir() {
    local base
    for base in "${XDG_RUNTIME_DIR-}/rbond-lab" /run/rbond-lab "/tmp/rbond-lab-$(id -u)"; do
        [ -d "$base/$lab" ] && echo "$base/$lab" && return
    done
    echo /nonexistent
}

system_begin() {
    trap system_end EXIT
    trap 'exit 1' INT TERM
    if ! "$rbond" lab up --name "$lab" --no-rbondd 2>"$work/up"; then
        if grep -q 'cannot make the namespaces' "$work/up"; then
            say "skipped: $(cat "$work/up")"
            exit 77
        fi
        die "$(cat "$work/up")"
    fi
    "$rbond" lab down --name "$lab"
    lab_is_up=1
    "$rbond" lab up --name "$lab" "$@" 2>"$work/up" || die "$(cat "$work/up")"
    rm -f "$work/up"
}

in_a() { "$rbond" lab exec --name "$lab" a "$@"; }
in_b() { "$rbond" lab exec --name "$lab" b "$@"; }
# For the background only: the job's pid is then the program's own.
exec_a() { exec "$rbond" lab exec --name "$lab" a "$@"; }
exec_b() { exec "$rbond" lab exec --name "$lab" b "$@"; }
cable() { "$rbond" lab "$1" --name "$lab" "${@:2}" || complain "lab $*"; } # cable cut|mend HOST LINK

# From now on a member of the bond is cut every 2 s, for 1 s, one after the other.
flap() {
    while :; do
        for link in 0 1; do
            "$rbond" lab cut --name "$lab" a "$link"
            sleep 1
            "$rbond" lab mend --name "$lab" a "$link"
            sleep 1
        done
    done &
    flapper=$!
}
flap_end() {
    kill "$flapper"
    wait "$flapper" 2>/dev/null
    flapper=
    cable mend a 0
    cable mend a 1
}

# wait_listen HOST PORT PID: until something of host b listens on a TCP port
wait_listen() {
    for _ in $(seq $((100 * slow))); do
        "$rbond" lab exec --name "$lab" "$1" ss -Hltn "sport = :$2" | grep -q . && return 0
        kill -0 "$3" 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}

# pair NAME SERVER-WORDS -- CLIENT-WORDS: a perftest server in b and its client in a. Output goes to
# $work/NAME.{b,a}. True when both ended well. PAIR_SECONDS (60) bounds it.
pair() {
    local name=$1 server=() rc=0 server_rc=0 pid
    shift
    while [ "$1" != -- ]; do
        server+=("$1")
        shift
    done
    shift
    exec_b timeout -k 2 "$((${PAIR_SECONDS:-60} * slow))" "${server[@]}" >"$work/$name.b" 2>&1 &
    pid=$!
    if ! wait_listen b "${PAIR_PORT:-18515}" "$pid"; then
        kill "$pid" 2>/dev/null
        wait "$pid"
        say "$name: the server did not start"
        return 1
    fi
    in_a timeout -k 2 "$((${PAIR_SECONDS:-60} * slow))" "$@" >"$work/$name.a" 2>&1 || rc=$?
    wait "$pid" || server_rc=$?
    [ "$rc" = 0 ] && [ "$server_rc" = 0 ] && return 0
    say "$name: client ended with $rc, server with $server_rc"
    return 1
}

# meet NAME SERVER-WORDS -- CLIENT-WORDS: as pair, for servers that do not listen on TCP. The client is
# tried again while the server is not there yet.
meet() {
    local name=$1 server=() pid rc=1 server_rc=0
    shift
    while [ "$1" != -- ]; do
        server+=("$1")
        shift
    done
    shift
    exec_b timeout $((30 * slow)) "${server[@]}" >"$work/$name.b" 2>&1 &
    pid=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sleep 0.3
        kill -0 "$pid" 2>/dev/null || break
        rc=0
        in_a timeout $((30 * slow)) "$@" >"$work/$name.a" 2>&1 || rc=$?
        [ "$rc" = 0 ] && break
        grep -qiE 'reject|unreachable' "$work/$name.a" || break
    done
    [ "$rc" = 0 ] || kill "$pid" 2>/dev/null
    wait "$pid" || server_rc=$?
    if [ "$rc" != 0 ] || [ "$server_rc" != 0 ]; then
        complain "$name: client ended with $rc, server with $server_rc"
    fi
}

# column FILE HEAD: the values of one column of a text table of rbond
column() {
    awk -v head="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == head) at = i; next }
        at { print $at }' "$1"
}
