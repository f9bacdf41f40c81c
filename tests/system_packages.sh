#!/bin/sh
# Installs the Debian packages that are missing, each of which brings a command of its own name.
set -eu
missing=""
for package in "$@"; do
    command -v "$package" >/dev/null || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "Not installed, and there is no apt-get:$missing. The tests that need them are skipped." >&2
    exit 0
fi
as_root=""
[ "$(id -u)" -eq 0 ] || as_root="sudo"
# RUNLEVEL: installed is not started; every test starts what it needs on a port of its own.
$as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive sh -c \
    "apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing" >/dev/null
