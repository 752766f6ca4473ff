# Shared by the tests that have a guest: this network namespace, which is made for them and goes with them,
# is rbond's host; the guest's kernel has rxe on the other end of its tap.
#   . "$(dirname "$0")/lib.sh"      takes the path of rbond off the words
# shellcheck shell=bash
set -u
test_name=$(basename "$0")
say() { echo "$test_name: $*"; }
skip() {
    say "skipped: $*"
    exit 77
}

rbond=$(realpath "${1:?usage: $0 path/to/rbond [words]}")
vm=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
if [ -z "${RBOND_VM_IMAGE-}" ]; then
    command -v qemu-system-x86_64 >/dev/null || skip 'no qemu-system-x86_64 (tools/setup --vm)'
    # Out here, since apt-get wants the network.
    RBOND_VM_IMAGE=$("$vm/image") || skip 'no image for a guest'
    export RBOND_VM_IMAGE
    unshare=(unshare -n)
    [ "$(id -u)" = 0 ] || unshare=(unshare -rn)
    "${unshare[@]}" true 2>/dev/null || skip 'no namespaces here'
    exec "${unshare[@]}" "$0" "$@"
fi
shift

work=$(mktemp -d)
guest=$work/guest
export RBOND_SOCKET=$work/rbond.sock
passed=0 failed=0 began=$SECONDS
host_in=() # what leads to rbond's host, where that is another namespace
pids=()

# Instrumented builds run several times slower: time limits grow with them.
slow=1
! nm -D "$rbond" 2>/dev/null | grep -q __asan_init || slow=4

vm_end() {
    local code=$?
    trap - EXIT
    "$vm/guest" stop "$guest"
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    rm -rf "$work"
    exit "$code"
}

# The summary, and with it the script's end.
vm_summary() {
    say "$((SECONDS - began)) s"
    say "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
    exit
}

# vm_begin TAPS...: taps of MTU 9000, a guest that has them, an rbondd.
vm_begin() {
    local tap
    trap vm_end EXIT
    trap 'exit 1' INT TERM
    ip link set lo up
    for tap in "$@"; do
        ip tuntap add "$tap" mode tap 2>"$work/tap" || skip "no tap here: $(cat "$work/tap")"
        ip link set "$tap" mtu 9000 up
    done
    "$vm/guest" boot "$guest" "$RBOND_VM_IMAGE" "$@" || exit 1
    say "guest up after $((SECONDS - began)) s: $(in_guest uname -sr), $(qemu-system-x86_64 --version | head -n 1)"
}

start_rbondd() {
    "${host_in[@]}" "$(dirname "$rbond")/../daemon/rbondd" >"$work/rbondd.log" 2>&1 &
    pids+=($!)
    for _ in $(seq 100); do
        "$rbond" dev >/dev/null 2>&1 && return
        sleep 0.05
    done
    say "rbondd does not answer: $(tail -n 3 "$work/rbondd.log")"
    exit 1
}

in_guest() { "$vm/guest" run "$guest" -t 60 "$@"; }

# on SIDE WORDS...: a program on `host` or in `guest`, for at most CASE_SECONDS.
on() {
    local side=$1 limit=$((${CASE_SECONDS:-30} * slow))
    shift
    if [ "$side" = host ]; then
        "${host_in[@]}" timeout -k 2 "$limit" "$rbond" run -- stdbuf -oL "$@"
    else
        "$vm/guest" run "$guest" -t $((limit + 10)) "timeout -k 2 $limit stdbuf -oL $(printf '%q ' "$@")"
    fi
}
other() { [ "$1" = host ] && echo guest || echo host; }

# gid_index SIDE PATTERN: of an address of the device
gid_index() {
    on "$1" ibv_devinfo -v -d "${dev[$1]}" 2>/dev/null |
        sed -n 's/^[[:space:]]*GID\[ *\([0-9]*\)\]:[[:space:]]*\([0-9a-f:.]*\).*/\1 \2/p' |
        awk -v pattern="$2" '$2 ~ pattern { print $1; exit }'
}

# await SIDE COMMAND: until it is true, for 10 s at most
await() {
    if [ "$1" = host ]; then
        "${host_in[@]}" timeout 10 bash -c "until $2; do sleep 0.05; done"
    else
        in_guest "timeout 10 bash -c $(printf %q "until $2; do sleep 0.1; done")"
    fi
}

# await_server READY SIDE PROGRAM: READY is a TCP port, `cm`, or `none` where nothing shows it
await_server() {
    case $1-$2 in
    none-*) sleep $((3 * slow)) ;;
    cm-guest)
        if [[ $3 = ib_* ]]; then
            await host "grep -qs 'Waiting for client' '$guest'/share/*.out"
        fi
        await guest 'rdma resource show cm_id | grep -q LISTEN'
        ;;
    # rbondd holds a request for some time where nobody listens yet.
    cm-host) sleep $((slow)) ;;
    *) await "$2" "ss -Hltn 'sport = :$1' | grep -q ." ;;
    esac
}

# pair CLIENT-SIDE READY SERVER-WORDS -- CLIENT-WORDS: true when both ends end well. Output goes to $work/{server,client}.
pair() {
    local side=$1 ready=$2 server=() rc=0 server_rc=0 pid serving
    serving=$(other "$side")
    shift 2
    while [ "$1" != -- ]; do
        server+=("$1")
        shift
    done
    shift
    on "$serving" "${server[@]}" >"$work/server" 2>&1 &
    pid=$!
    await_server "$ready" "$serving" "${server[0]}" || say 'the server does not listen'
    on "$side" "$@" >"$work/client" 2>&1 || rc=$?
    if [ "$rc" != 0 ]; then
        # Else the server would wait for long.
        sleep 1
        end "$serving" "${server[0]}"
    fi
    wait "$pid" || server_rc=$?
    [ "$rc" = 0 ] && [ "$server_rc" = 0 ] && return 0
    say "client ended with $rc, server with $server_rc"
    return 1
}

# end SIDE PROGRAM [SIGNAL]: what runs by that name there, and nowhere else
end() {
    local pid there
    if [ "$1" = guest ]; then
        in_guest "pkill -${3-TERM} -x '${2:0:15}'"
        return
    fi
    there=$("${host_in[@]}" readlink /proc/self/ns/net)
    for pid in $(pgrep -x "${2:0:15}"); do
        [ "$(readlink "/proc/$pid/ns/net")" != "$there" ] || kill "-${3-TERM}" "$pid"
    done
}

# try NAME COMMAND...: one line of the result
try() {
    local name=$1 at=$EPOCHREALTIME verdict=ok
    shift
    if [ -n "${ONLY-}" ] && ! [[ $name =~ $ONLY ]]; then return; fi
    rm -f "$work"/{server,client,said}
    if "$@" >"$work/said" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        verdict=FAILED
    fi
    at=$((${EPOCHREALTIME/./} - ${at/./}))
    printf '%s %s %d.%d\n' "$name" "$verdict" $((at / 1000000)) $((at / 100000 % 10))
    [ "$verdict" = ok ] && return
    for file in said client server; do
        [ -s "$work/$file" ] && tail -n 8 "$work/$file" | cut -c 1-160 | sed "s/^/  $file: /"
    done
}
