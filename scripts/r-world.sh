# Shared by scripts/test-r and scripts/bench: R in the test root file system, and a board with workers on loopback. Needs
# common.sh, $root (the root file system), $programs (the folder of the programs) and $folder (a temporary one).
# shellcheck shell=bash

world=()

# in_root COMMAND...: runs it in the root file system, as whoever runs this, with $folder as /tmp/here and the programs in /tmp/programs.
in_root() {
  local settings=() name
  for name in $(compgen -e | grep -E '^(P2P_TEST_|_R_CHECK_)' || true); do settings+=(--setenv "$name" "${!name}"); done
  # Tests interrupt R, which would ignore it where whoever started this does (nohup, a job in the background).
  env --default-signal=INT,QUIT bwrap --ro-bind "$root" / --dev /dev --proc /proc --tmpfs /tmp --bind "$folder" /tmp/here --ro-bind "$programs" /tmp/programs \
    --clearenv --setenv PATH /usr/bin:/bin --setenv HOME /tmp/here/home --setenv LC_ALL C.UTF-8 --setenv R_LIBS_USER /tmp/here/library \
    --setenv P2P_TEST_PROGRAM "${P2P_TEST_PROGRAM-}" "${settings[@]}" --die-with-parent --chdir /tmp/here "$@"
}

# start_board [NAME]: a board with the account alice, whose key is in $folder/home, and its state in $folder/NAME; sets $board_port
# and $board_pid.
start_board() {
  local state=$folder/${1-board}
  mkdir -p "$folder/home/.ssh" "$folder/library"
  chmod 700 "$folder/home/.ssh"
  [ -e "$folder/home/.ssh/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C test -f "$folder/home/.ssh/id_ed25519"
  "$programs/p2p-worker" board user add alice "$folder/home/.ssh/id_ed25519.pub" --state "$state" >/dev/null
  "$programs/p2p-worker" board --listen 127.0.0.1:0 --state "$state" >"$state.log" 2>&1 &
  board_pid=$!
  world+=("$board_pid")
  await "$state.log" 'board:'
  board_port=$(sed -n 's/.*board:[^0-9]*127\.0\.0\.1[^0-9]*\([0-9]\{1,5\}\).*/\1/p' "$state.log" | head -n 1)
  [ -n "$board_port" ] || die "the board does not say its port: $(cat "$state.log")"
}

# start_worker NAME ARGUMENT...: a worker of alice's personal cluster that has joined, on processor $WORKER_ON if that is set; adds its
# process to $workers.
start_worker() {
  local name=$1
  shift
  local on=()
  [ -z "${WORKER_ON-}" ] || on=(taskset -c "$WORKER_ON")
  HOME=$folder/home P2P_WORKER_LOG=info "${on[@]}" "$programs/p2p-worker" --board "127.0.0.1:$board_port" --accept-new --root "$root" \
    --state "$folder/$name" "$@" >"$folder/$name.log" 2>&1 &
  world+=($!)
  workers="${workers-} $!"
  await "$folder/$name.log" 'joined the cluster'
}

# await FILE TEXT: until the file has the text, or the minute is over.
await() {
  local _
  for _ in $(seq 600); do
    ! grep -qs -- "$2" "$1" || return 0
    sleep 0.1
  done
  die "in vain: $2 in $1: $(tail -n 20 "$1")"
}

# r_tests FILTER: the package's tests whose files' names match, with what P2P_TEST_... says. Skipped tests are named.
r_tests() {
  in_root Rscript --vanilla -e "
    .libPaths('/tmp/here/library')
    library(testthat)
    test_dir('/tmp/here/source/tests/testthat', package = 'future.libp2p', load_package = 'installed', filter = '$1',
      reporter = CheckReporter\$new(), stop_on_failure = TRUE)
  "
}

# real_tests FILTER: the same with a board and two workers; and, for what goes wrong, another board with one worker whose limits are small.
real_tests() {
  start_board
  start_worker worker1 --profile strict
  start_worker worker2 --profile standard
  export P2P_TEST_PROGRAM=/tmp/programs/p2p-worker P2P_TEST_FLAGS="--board=127.0.0.1:$board_port --accept-new" P2P_TEST_WORKERS="$workers"
  small_profile >"$folder/small.toml"
  start_board frail
  workers=
  start_worker frail-worker --profile "$folder/small.toml" --slots 3
  export P2P_TEST_FRAIL_PORT=$board_port P2P_TEST_FRAIL_BOARD=$board_pid P2P_TEST_FRAIL_WORKER="${workers# }" P2P_TEST_FRAIL_STATE=/tmp/here/frail
  r_tests "$1" || { tail -n 40 "$folder"/worker*.log; die "tests of future.libp2p failed"; }
  stop_world
}

# Limits that a test can reach in seconds.
small_profile() {
  cat <<'END'
inherits = "strict"

[limits]
memory = "512 MiB"
cpu_time = "3 s"
wall_time = "20 s"
file_size = "64 MiB"
result = "1 MiB"

[scratch]
"/tmp" = { size = "32 MiB", files = 200, why = "R's tempdir()" }
END
}

stop_world() {
  local pid
  for pid in "${world[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${world[@]}"; do wait "$pid" 2>/dev/null || true; done
  world=()
  workers=
}
