# Shared by the scripts beside it: what is needed is named before it is installed.
# shellcheck shell=bash

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command as root, directly or by sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need_packages PACKAGE...: installs the Debian packages that are missing, saying so first.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "these packages are missing, and there is no apt-get to install them: ${missing[*]}"
  say "installing with apt-get: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# need_rust: cargo, on the path or where rustup puts it.
need_rust() {
  command -v cargo >/dev/null || export PATH="$HOME/.cargo/bin:$PATH"
  command -v cargo >/dev/null || die "cargo is not installed: see https://rustup.rs, then run this again"
}

# What it takes to build and to run a task at all.
RUNTIME_PACKAGES=(gcc libc6-dev r-base-core r-cran-future bubblewrap openssh-client)

# The folder of the programs that the demo and the tests share.
PROGRAMS=${CARGO_TARGET_DIR:-target}/debug

# Packages of real R work, which the tests do in the sandbox: compiled code, databases, regular expressions, fonts.
R_WORK_PACKAGES=(r-cran-data.table r-cran-rcpp r-cran-rsqlite r-cran-stringi make g++ fonts-dejavu-core)
