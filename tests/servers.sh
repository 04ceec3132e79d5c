#!/bin/sh
# Installs what the tests start, from Debian's packages: `servers.sh [PACKAGE...]`.
set -eu
missing="$*"
if [ -z "$missing" ] && ! ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 &&
    ! command -v pg_ctl >/dev/null; then
    missing=postgresql
fi
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Please install: $missing" >&2
    exit 1
fi
echo "Installing $missing"
# The tests start servers of their own: the package shall not start one as well.
mkdir -p /etc/postgresql-common/createcluster.d
echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/no-main.conf
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -qq -y --no-install-recommends $missing >/dev/null
