#!/usr/bin/env bash
# A cluster of real raftd processes on this machine. `scripts/cluster.sh help` says what it can do.
#
# Needs Rust, bash 5 and Linux. Every process it signals is one it started: a pid file holds the
# process id and the process's start time, so that an id that was given to somebody else is left
# alone.
set -euo pipefail

usage() {
    cat <<'END'
scripts/cluster.sh [COMMAND]

  demo         three fresh nodes: write, kill the leader, read everything back, restart (default)
  up [N] [--gateway]
               start N nodes (default 3), or those of the last `up` that are down;
               with --gateway etcd's API before them, on GATEWAY_LISTEN
  status       what every node says of itself
  kill ID      kill -9 a node
  start ID     start a node that is down
  pause ID     stop a node in mid-air (SIGSTOP)
  resume ID    let it go on
  down         stop every node and the gateway; the data stays
  help         this text

  CLUSTER_DIR        where data and logs are kept             (default target/cluster)
  CLUSTER_PORT_BASE  the first node's port                    (default 7101)
  CLUSTER_BIN        a directory with raftd and raftctl, instead of building them
  RAFTD_FLAGS        more flags for every node, see raftd --help
  GATEWAY_LISTEN     where the gateway takes clients          (default 127.0.0.1:2379)
END
}

ROOT=$(CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
BIN=${CLUSTER_BIN:-$TARGET/release}
RAFTD=$BIN/raftd
RAFTCTL=$BIN/raftctl
GATEWAY=$BIN/raftd-gateway
LISTEN=${GATEWAY_LISTEN:-127.0.0.1:2379}
DIR=${CLUSTER_DIR:-$ROOT/target/cluster}
[[ $DIR == /* ]] || DIR=$PWD/$DIR
BASE=${CLUSTER_PORT_BASE:-7101}
[[ $BASE =~ ^[1-9][0-9]{0,4}$ ]] && ((BASE < 65000)) || {
    echo "cluster.sh: CLUSTER_PORT_BASE is a port below 65000, not '$BASE'" >&2
    exit 2
}
COUNT=3
KEYS=1000
# For what takes a second or two on most machines, in seconds: on a slow one it is waited for, too.
PATIENCE=60
WRITERS=8

if [[ -t 1 ]]; then BOLD=$'\e[1m' GREEN=$'\e[32m' RED=$'\e[31m' PLAIN=$'\e[0m'
else BOLD='' GREEN='' RED='' PLAIN=''; fi

say() { printf '%s\n' "$*"; }
step() { printf '%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }
die() { printf '%scluster.sh: %s%s\n' "$RED" "$*" "$PLAIN" >&2; exit 1; }

# ---- waiting: a descriptor that never has anything to read, and deadlines ----------------------

exec {IDLE}<> <(:)
breathe() { read -rt 0.03 -u "$IDLE" || true; }
now_us() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# wait_until SECONDS COMMAND...: true as soon as COMMAND is, false when the time is up.
wait_until() {
    local deadline=$(($(now_us) + $1 * 1000000))
    shift
    until "$@"; do
        (($(now_us) < deadline)) || return 1
        breathe
    done
}

# One script at a time changes a cluster; where there is no flock, users take care themselves.
LOCK=''
lock() {
    mkdir -p "$DIR" || die "cannot make $DIR"
    command -v flock >/dev/null || return 0
    exec {LOCK}>>"$DIR/.lock"
    flock -w "$1" "$LOCK" || die "another scripts/cluster.sh is at work on $DIR"
}

# ---- processes --------------------------------------------------------------------------------

# Field 22 of /proc/PID/stat, ticks from boot to the start of the process; none for a zombie.
started_at() {
    local stat fields
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    read -ra fields <<<"${stat##*) }"
    [[ ${fields[0]} != [ZX] ]] && printf '%s' "${fields[19]}"
}

# The process of node ID, if it is the one we started.
pid_of() {
    local pid started
    { read -r pid started <"$DIR/$1.pid"; } 2>/dev/null || return 1
    [[ $pid =~ ^[1-9][0-9]*$ && $started =~ ^[0-9]+$ ]] || return 1
    [[ $(started_at "$pid") == "$started" ]] && printf '%s' "$pid"
}

is_up() { pid_of "$1" >/dev/null; }
is_down() { ! is_up "$1"; }

signal() {
    local pid
    pid=$(pid_of "$2") || die "node $2 is not running; scripts/cluster.sh start $2 starts it"
    kill "-$1" "$pid"
}

address() { printf '127.0.0.1:%s' $((BASE + $1 - 1)); }

# The addresses of these nodes, in this order.
endpoints() {
    local list='' id
    for id in "$@"; do list+="${list:+,}$(address "$id")"; done
    printf '%s' "$list"
}

peers() {
    local list='' id
    for ((id = 1; id <= COUNT; id++)); do list+="${list:+,}$id=$(address "$id")"; done
    printf '%s' "$list"
}

all_ids() { seq 1 "$COUNT"; }

launch() {
    local id=$1 port=$((BASE + $1 - 1))
    is_down "$id" || die "node $id is already running"
    port_taken "$port" && die "port $port of node $id is taken by $(port_owner "$port"); stop it"
    rm -f "$DIR/$id.pid"
    # The process notes its own id before it becomes raftd, so that none is ever without a note,
    # whenever this script is killed.
    (
        me=$BASHPID # not inside $(…), which is a process of its own
        printf '%s %s\n' "$me" "$(started_at "$me")" >"$DIR/$id.pid"
        [[ -z $LOCK ]] || exec {LOCK}>&-
        exec {IDLE}<&-
        # shellcheck disable=SC2086  # flags are words
        exec nohup "$RAFTD" --id "$id" --peers "$(peers)" --data-dir "$DIR/$id" ${RAFTD_FLAGS:-}
    ) >>"$DIR/$id.log" 2>&1 </dev/null &
    disown $!
    wait_until $PATIENCE test -s "$DIR/$id.pid" || die "cannot start node $id"
}

launch_gateway() {
    local port=${LISTEN##*:}
    is_down gateway || return 0
    gateway_taken && die "port $port of the gateway is taken by $(port_owner "$port"); stop it"
    rm -f "$DIR/gateway.pid"
    (
        me=$BASHPID
        printf '%s %s\n' "$me" "$(started_at "$me")" >"$DIR/gateway.pid"
        [[ -z $LOCK ]] || exec {LOCK}>&-
        exec {IDLE}<&-
        exec nohup "$GATEWAY" --listen "$LISTEN" --cluster "$(endpoints $(all_ids))"
    ) >>"$DIR/gateway.log" 2>&1 </dev/null &
    disown $!
    wait_until $PATIENCE gateway_listens_or_died || true
    is_up gateway && gateway_taken ||
        { tail -n 3 "$DIR/gateway.log" >&2; die "the gateway did not start"; }
}

gateway_listens_or_died() {
    [[ -s $DIR/gateway.pid ]] && { gateway_taken || is_down gateway; }
}

stop_all() {
    local id pid
    for id in gateway $(all_ids); do
        pid=$(pid_of "$id") || continue
        # A paused node hears TERM only when it goes on.
        kill -TERM "$pid" && kill -CONT "$pid" || true
    done
    for id in gateway $(all_ids); do
        # It writes down what it has first, and takes 5 s for that at most.
        if ! wait_until 8 is_down "$id"; then
            pid=$(pid_of "$id") && kill -KILL "$pid" || true
            wait_until $PATIENCE is_down "$id" || die "$id does not end"
        fi
        rm -f "$DIR/$id.pid"
    done
}

# The processes that work in our directory, whoever noted them: to see that none is left.
left_running() {
    local file line
    for file in /proc/[0-9]*/cmdline; do
        { line=$(tr '\0' ' ' <"$file"); } 2>/dev/null || continue
        if [[ $line == *"--data-dir $DIR/"* ]]; then
            file=${file#/proc/}
            printf '%s ' "${file%/cmdline}"
        fi
    done
}

# ---- ports ------------------------------------------------------------------------------------

# port_taken PORT [HOST]
port_taken() { (exec 3<>"/dev/tcp/${2:-127.0.0.1}/$1") 2>/dev/null; }

# Whether somebody takes clients where the gateway is to: on another address that port may be free.
gateway_taken() {
    local host=${LISTEN%:*}
    host=${host#[}
    port_taken "${LISTEN##*:}" "${host%]}"
}

# Who listens on a port: the socket's inode in /proc/net, then whoever holds that socket.
port_owner() {
    local hex inode='' line fields pid=''
    printf -v hex '%04X' "$1"
    while read -ra fields; do
        [[ ${fields[1]} == *:"$hex" && ${fields[3]} == 0A ]] && inode=${fields[9]}
    done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
    while read -r line; do
        [[ $line == /proc/*/fd: ]] && pid=${line#/proc/} && pid=${pid%%/*}
        if [[ -n $inode && $line == *"socket:[$inode]" ]]; then
            printf 'process %s (%s)' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline")"
            return
        fi
    done < <(ls -l /proc/[0-9]*/fd 2>/dev/null)
    printf 'a process of another user'
}

first_taken_port() {
    local id
    for id in $(all_ids); do
        if port_taken $((BASE + id - 1)); then
            printf '%s' $((BASE + id - 1))
            return
        fi
    done
    return 1
}

# ---- what nodes say ---------------------------------------------------------------------------

ctl() { "$RAFTCTL" --endpoints "$(endpoints $(all_ids))" "$@"; }

status_json() {
    "$RAFTCTL" --endpoints "$(address "$1")" --timeout 1s --output json status 2>/dev/null || true
}

# field NAME JSON: the value of the first "NAME".
field() {
    local pattern="\"$1\": *\"?([^,\"}]*)"
    [[ $2 =~ $pattern ]] && printf '%s' "${BASH_REMATCH[1]}"
}

LEADER='' APPLIED=''
find_leader() {
    local id json
    for id in $(all_ids); do
        is_up "$id" || continue
        json=$(status_json "$id")
        if [[ $(field role "$json") == leader ]]; then
            LEADER=$id APPLIED=$(field applied_index "$json")
            return
        fi
    done
    return 1
}

leads_or_dies() {
    local id
    find_leader && return
    for id in $(all_ids); do is_down "$id" && return; done
    return 1
}

has_applied() {
    local applied
    applied=$(field applied_index "$(status_json "$1")") || return 1
    ((applied >= $2))
}

# Whether all nodes stand at the same index with the same state.
all_equal() {
    local id json this standing=''
    for id in $(all_ids); do
        json=$(status_json "$id")
        this="$(field applied_index "$json") $(field state_hash "$json")" || return 1
        [[ $this == "${standing:=$this}" ]] || return 1
    done
}

# ---- commands ---------------------------------------------------------------------------------

# build [gateway]: what is to be started.
build() {
    local started features=ctl programs=(--bin raftd --bin raftctl)
    if [[ ${1:-} == gateway ]]; then
        features+=,gateway programs+=(--bin raftd-gateway)
    fi
    if [[ -n ${CLUSTER_BIN:-} ]]; then
        [[ -x $RAFTD && -x $RAFTCTL ]] || die "there is no raftd or raftctl in $CLUSTER_BIN"
        [[ ${1:-} != gateway || -x $GATEWAY ]] || die "there is no raftd-gateway in $CLUSTER_BIN"
        return
    fi
    command -v cargo >/dev/null || die "cargo is not here: install Rust, see https://rustup.rs"
    started=$(now_us)
    say "building raftd and raftctl (the first time takes a minute) …"
    cargo build --quiet --release --manifest-path "$ROOT/Cargo.toml" \
        --no-default-features --features "$features" "${programs[@]}"
    say "built in $((($(now_us) - started) / 1000000)) s"
}

# The nodes of the last `up`: their number and their first port.
remember() { { read -r COUNT BASE <"$DIR/shape"; } 2>/dev/null; }

known() {
    remember || die "there is no cluster in $DIR; scripts/cluster.sh up starts one"
    [[ ${1:-} =~ ^[1-9]$ ]] && (($1 <= COUNT)) || die "say which node: 1 to $COUNT"
}

cmd_up() {
    local id taken='' wanted='' gateway=''
    for id in "$@"; do
        if [[ $id == --gateway ]]; then gateway=gateway; else wanted=$id; fi
    done
    [[ -z $wanted || $wanted =~ ^[1-9]$ ]] || die "up takes a number of nodes from 1 to 9"
    lock $((2 * PATIENCE))
    if remember; then
        [[ -z $wanted || $wanted == "$COUNT" ]] ||
            die "$DIR holds a cluster of $COUNT; remove that directory to start another one"
    else
        COUNT=${wanted:-3}
        taken=$(first_taken_port) &&
            die "port $taken is taken by $(port_owner "$taken"); stop it or set CLUSTER_PORT_BASE"
        mkdir -p "$DIR"
        printf '%s %s\n' "$COUNT" "$BASE" >"$DIR/shape"
    fi
    build "$gateway"
    for id in $(all_ids); do is_up "$id" || launch "$id"; done
    wait_until $PATIENCE leads_or_dies || { tails; die "no leader within $PATIENCE s"; }
    [[ -n $LEADER ]] || { tails; die "a node did not start"; }
    ctl --output table status || true
    [[ -z $gateway ]] || { launch_gateway; say "etcd's API is on $LISTEN"; }
    say "logs and data are in $DIR; raftctl is $RAFTCTL"
}

tails() {
    local id
    for id in $(all_ids); do
        [[ -e $DIR/$id.log ]] || continue
        say "--- the last lines of $DIR/$id.log"
        tail -n 12 "$DIR/$id.log"
    done >&2
}

cmd_down() {
    local known=0 left
    [[ -d $DIR ]] || { say "there is no cluster in $DIR"; return; }
    down_demo
    lock $((2 * PATIENCE))
    if remember; then known=1; stop_all; fi
    # Only what is noted is ended; that nothing else runs must be true all the same.
    left=$(left_running)
    [[ -z $left ]] || die "processes without a note work in $DIR, end them yourself: $left"
    if ((known)); then
        say "all $COUNT nodes are down; their data stays in $DIR"
    elif ((ENDED == 0)); then
        say "there is no cluster in $DIR"
    fi
}

# What a demonstration left that was killed: it takes its own nodes with it otherwise.
ENDED=0
down_demo() {
    local DIR=$DIR/demo COUNT=3 id
    [[ -d $DIR ]] || return 0
    lock $((2 * PATIENCE))
    for id in $(all_ids); do is_down "$id" || ENDED=$((ENDED + 1)); done
    stop_all
    exec {LOCK}>&-
    LOCK=''
    ((ENDED == 0)) || say "$ENDED nodes of a killed demonstration are down; they were in $DIR"
}

cmd_kill() {
    signal KILL "$1"
    wait_until $PATIENCE is_down "$1" || die "node $1 does not end"
    say "node $1 is dead"
}

cmd_start() {
    lock $((2 * PATIENCE))
    launch "$1"
    wait_until $PATIENCE answers_or_is_down "$1" || die "node $1 does not answer; see $DIR/$1.log"
    is_up "$1" || { tail -n 3 "$DIR/$1.log" >&2; die "node $1 did not start"; }
    say "node $1 is started"
}

answers_or_is_down() { is_down "$1" || [[ -n $(status_json "$1") ]]; }

# ---- demo -------------------------------------------------------------------------------------

demo_fails() { printf '%sFAIL: %s%s\n' "$RED" "$*" "$PLAIN" >&2; tails; exit 1; }

demo_ends() {
    local code=$?
    trap - EXIT
    stop_all || code=1
    exit "$code"
}

# The share of writer $1: every WRITERS-th key.
write_share() {
    local key
    for ((key = $1; key <= KEYS; key += WRITERS)); do
        printf -v key '%04d' "$key"
        "$RAFTCTL" --endpoints "$2" --timeout 20s put "demo/$key" "value of $key" \
            >/dev/null || return 1
        key=$((10#$key))
    done
}

write_keys() {
    local writers=() writer started failed=0
    started=$(now_us)
    for ((writer = 1; writer <= WRITERS; writer++)); do
        # A writer that outlives a killed script must not hold its lock.
        ([[ -z $LOCK ]] || exec {LOCK}>&-; write_share "$writer" "$1") &
        writers+=($!)
    done
    for writer in "${writers[@]}"; do wait "$writer" || failed=1; done
    ((failed == 0)) || demo_fails "a put failed while all nodes were up"
    say "  $KEYS puts acknowledged in $((($(now_us) - started) / 1000)) ms, one raftctl each"
}

put_after_kill() { "$RAFTCTL" --endpoints "$1" --timeout 5s put after-kill yes >/dev/null 2>&1; }

# Every key as `get --prefix` prints it: a line for the key, a line for the value.
expected() {
    local key
    for ((key = 1; key <= KEYS; key++)); do
        printf 'demo/%04d\nvalue of %04d\n' "$key" "$key"
    done
}

read_back() {
    local found
    found=$("$RAFTCTL" --endpoints "$(address "$1")" get demo/ --prefix \
        --consistency serializable) || demo_fails "node $1 does not answer a get"
    [[ $found == "$2" ]] || demo_fails "node $1 does not hold exactly the $KEYS keys written"
    say "  node $1 holds all $KEYS keys in its own state"
}

demo_start() {
    local tried
    DIR=$DIR/demo
    lock $((2 * PATIENCE))
    stop_all
    # Only what a cluster of ours leaves: the directory may hold other things.
    rm -rf -- "$DIR"/[1-9] "$DIR"/[1-9].log "$DIR"/[1-9].pid "$DIR/shape"
    for ((tried = 0; tried < 20; tried++)); do
        first_taken_port >/dev/null || break
        BASE=$((BASE + 10))
    done
    local taken
    taken=$(first_taken_port) && die "port $taken is taken by $(port_owner "$taken"): stop it"
    trap demo_ends EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    # Small segments: a demonstration need not fill 400 MB of disk.
    RAFTD_FLAGS=${RAFTD_FLAGS:---segment-bytes 4194304}
    step "1. three fresh nodes on $(peers)"
    local id
    for id in $(all_ids); do launch "$id"; done
    wait_until $PATIENCE leads_or_dies || demo_fails "no leader within $PATIENCE s"
    [[ -n $LEADER ]] || demo_fails "a node did not start"
    say "  node $LEADER leads"
}

demo_kill() {
    local killed=$1 rest started
    rest=$(endpoints "${@:2}")
    signal KILL "$killed"
    started=$(now_us)
    wait_until $PATIENCE put_after_kill "$rest" ||
        demo_fails "no put succeeded within $PATIENCE s of the kill"
    say "  nobody could write for $((($(now_us) - started) / 1000)) ms"
    wait_until $PATIENCE find_leader || demo_fails "the put succeeded, but nobody says it leads"
    say "  node $LEADER leads now"
}

cmd_demo() {
    build
    demo_start
    local killed=$LEADER survivors=() id started
    started=$(now_us)
    for id in $(all_ids); do ((id == killed)) || survivors+=("$id"); done

    step "2. write $KEYS keys"
    write_keys "$(endpoints "$killed" "${survivors[@]}")"

    step "3. kill -9 the leader, node $killed"
    demo_kill "$killed" "${survivors[@]}"

    step "4. read every key from each survivor's own state"
    local all
    all=$(expected)
    for id in "${survivors[@]}"; do
        wait_until $PATIENCE has_applied "$id" "$APPLIED" ||
            demo_fails "node $id lags behind $APPLIED"
        read_back "$id" "$all"
    done

    step "5. restart node $killed"
    launch "$killed"
    wait_until $PATIENCE all_equal ||
        demo_fails "the nodes do not reach the same state within $PATIENCE s"
    read_back "$killed" "$all"
    ctl --output table status || demo_fails "a node is not healthy"

    step "6. stop"
    stop_all
    local left
    left=$(left_running)
    [[ -z $left ]] || demo_fails "still running: $left"
    say "  no process is left"
    say "${GREEN}PASS${PLAIN} in $((($(now_us) - started) / 1000)) ms"
}

case ${1:-demo} in
demo) cmd_demo ;;
up) cmd_up "${@:2}" ;;
down) cmd_down ;;
status)
    remember || die "there is no cluster in $DIR; scripts/cluster.sh up starts one"
    ctl --output table status
    ;;
kill) known "${2:-}" && cmd_kill "$2" ;;
start) known "${2:-}" && cmd_start "$2" ;;
pause) known "${2:-}" && signal STOP "$2" && say "node $2 is paused" ;;
resume) known "${2:-}" && signal CONT "$2" && say "node $2 goes on" ;;
help | -h | --help) usage ;;
*) usage >&2; exit 2 ;;
esac
