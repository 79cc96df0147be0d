# Shared by the scripts that try the programs in a virtual machine and in containers: each thing that must hold is said, and
# what does not is counted.
# shellcheck shell=bash

failures=0

held() { echo "ok - $1 (after $SECONDS s)"; }

# broken WHAT WHY OUTPUT
broken() {
  failures=$((failures + 1))
  echo "not ok - $1: $2"
  sed 's/^/    /' <<<"$3" | tail -n 40
}

# check WHAT TEXT COMMAND...: the command's output (both streams) holds the text, lines taken as one.
check() {
  local what=$1 text=$2 output
  shift 2
  output=$("$@" 2>&1) || true
  if tr -s '\n ' ' ' <<<"$output" | grep -qF -- "$text"; then
    held "$what"
  else
    broken "$what" "expected \"$text\" in:" "$output"
  fi
}

# ends WHAT STATUS COMMAND...: the command ends with this exit status.
ends() {
  local what=$1 expected=$2 output status=0
  shift 2
  output=$("$@" 2>&1) || status=$?
  if [ "$status" = "$expected" ]; then held "$what"; else broken "$what" "exit status $status instead of $expected:" "$output"; fi
}

# conclude: fails if anything did not hold.
conclude() {
  if [ "$failures" = 0 ]; then echo passed; else echo "failed: $failures"; return 1; fi
}
