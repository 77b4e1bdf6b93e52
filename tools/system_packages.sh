#!/usr/bin/env bash
# Install the Debian packages named on the command line that are missing: tools/system_packages.sh chromium slurm-wlm
# Where that can't be done (no apt, not root, no package source in reach) it says why and succeeds: the tests that need
# a missing program are skipped, and `make test-system` lists them.
set -euo pipefail

say() { echo "system packages: $*" >&2; }

[ $# -gt 0 ] || { say "name at least one Debian package"; exit 2; }
if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "no apt-get here; if they are missing, install them your way: $*"
    exit 0
fi
missing=()
for package in "$@"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    say "only root can install them; missing: ${missing[*]}"
    exit 0
fi
say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { apt-get install --yes --quiet --quiet -o DPkg::Lock::Timeout=300 "${missing[@]}"; }
# Old package lists may still do; a fresh machine has none.
if ! { install || { apt-get update --quiet --quiet && install; }; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    say "could not be installed: ${missing[*]}"
fi
