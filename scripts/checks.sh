# Shared by the scripts that try the programs in a virtual machine and in containers: each thing that must hold is said, and
# what does not is counted, also where checks run side by side.
# shellcheck shell=bash

counted=$(mktemp)

held() { echo "ok - $1 (after $SECONDS s)"; }

# broken WHAT WHY OUTPUT
broken() {
  echo "$1" >>"$counted"
  echo "not ok - $1: $2"
  sed 's/^/    /' <<<"$3" | tail -n 40
}

# check WHAT TEXT COMMAND...: the command's output (both streams) holds the text, lines and blanks taken as one blank.
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

# conclude: says whether everything held, and fails otherwise.
conclude() {
  local failures
  failures=$(wc -l <"$counted")
  rm -f "$counted"
  if [ "$failures" = 0 ]; then echo passed; else echo "failed: $failures"; return 1; fi
}
