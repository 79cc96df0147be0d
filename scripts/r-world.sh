# Shared by scripts/test-r and scripts/bench: R in the test root file system, and a board with workers on loopback. Needs
# common.sh, $root (the root file system), $programs (the folder of the programs) and $folder (a temporary one).
# shellcheck shell=bash

world=()

# in_root COMMAND...: runs it in the root file system, as whoever runs this, with $folder as /tmp/here and the programs in /tmp/programs.
in_root() {
  local settings=() name
  for name in $(compgen -e | grep -E '^(P2P_TEST_|_R_CHECK_)' || true); do settings+=(--setenv "$name" "${!name}"); done
  bwrap --ro-bind "$root" / --dev /dev --proc /proc --tmpfs /tmp --bind "$folder" /tmp/here --ro-bind "$programs" /tmp/programs \
    --clearenv --setenv PATH /usr/bin:/bin --setenv HOME /tmp/here/home --setenv LC_ALL C.UTF-8 --setenv R_LIBS_USER /tmp/here/library \
    --setenv P2P_TEST_PROGRAM "${P2P_TEST_PROGRAM-}" "${settings[@]}" --die-with-parent --chdir /tmp/here "$@"
}

# start_board: a board with the account alice, whose key is in $folder/home; sets $board_port.
start_board() {
  mkdir -p "$folder/home/.ssh" "$folder/library"
  chmod 700 "$folder/home/.ssh"
  ssh-keygen -q -t ed25519 -N '' -C test -f "$folder/home/.ssh/id_ed25519"
  "$programs/p2p-worker" board user add alice "$folder/home/.ssh/id_ed25519.pub" --state "$folder/board" >/dev/null
  "$programs/p2p-worker" board --listen 127.0.0.1:0 --state "$folder/board" >"$folder/board.log" 2>&1 &
  world+=($!)
  await "$folder/board.log" 'board:'
  board_port=$(sed -n 's/.*board:[^0-9]*127\.0\.0\.1[^0-9]*\([0-9]\{1,5\}\).*/\1/p' "$folder/board.log" | head -n 1)
  [ -n "$board_port" ] || die "the board does not say its port: $(cat "$folder/board.log")"
}

# start_worker NAME ARGUMENT...: a worker of alice's personal cluster that has joined; adds its process to $workers.
start_worker() {
  local name=$1
  shift
  HOME=$folder/home P2P_WORKER_LOG=info "$programs/p2p-worker" --board "127.0.0.1:$board_port" --accept-new --root "$root" \
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

# real_tests FILTER: the same with a board and two workers.
real_tests() {
  start_board
  start_worker worker1 --profile strict
  start_worker worker2 --profile standard
  export P2P_TEST_PROGRAM=/tmp/programs/p2p-worker P2P_TEST_FLAGS="--board=127.0.0.1:$board_port --accept-new" P2P_TEST_WORKERS="$workers"
  r_tests "$1" || { tail -n 40 "$folder"/worker*.log; die "tests of future.libp2p failed"; }
  stop_world
}

stop_world() {
  local pid
  for pid in "${world[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${world[@]}"; do wait "$pid" 2>/dev/null || true; done
  world=()
  workers=
}
