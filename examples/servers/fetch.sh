#!/usr/bin/env bash
# Servers that the machine does not have, for the examples and the tests: Debian's packages, unpacked into
# .cache/servers. Nothing is installed, and nothing is started; where there is no apt, nothing happens.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
into=$PWD/.cache/servers

# fetch PROGRAM PACKAGE...: the packages, unless the program is there.
fetch() {
  local program=$1
  shift
  if command -v "$program" >/dev/null || [ -x "$into/usr/sbin/$program" ] || [ -x "$into/usr/bin/$program" ] ||
    compgen -G "/usr/lib/postgresql/*/bin/$program" >/dev/null ||
    compgen -G "$into/usr/lib/postgresql/*/bin/$program" >/dev/null; then
    return
  fi
  echo "==> fetching $program"
  if [ ! -e "$into/.updated" ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
  fi
  mkdir -p "$into"
  touch "$into/.updated"
  local packages
  packages=$(mktemp -d)
  local package
  for package in "$@"; do # one by one: one that this release does not have must not keep the others away
    (cd "$packages" && apt-get download -qq "$package" 2>/dev/null) || true
  done
  for package in "$packages"/*.deb; do
    if [ -e "$package" ]; then dpkg -x "$package" "$into"; fi
  done
  rm -rf "$packages"
}

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
  exit 0
fi

# Two servers for FTP, which Debian does not install side by side, and the libraries they bring along: some of them
# have other names in later releases.
fetch proftpd proftpd-core proftpd-mod-crypto libpcre2-posix3 libhiredis0.14 libhiredis1.1.0 \
  libmemcached11 libmemcachedutil2 libhashkit2 libmemcached11t64 libmemcachedutil2t64 libhashkit2t64
fetch vsftpd vsftpd libwrap0

fetch initdb postgresql-15 postgresql-client-15 libpq5 libicu72 libxml2 libldap-2.5-0 libsasl2-2 libgssapi-krb5-2
