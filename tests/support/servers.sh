#!/bin/sh
# Installs what the tests start, from Debian's packages: `servers.sh [PACKAGE...]`.
set -eu
missing="$*"
has() {
    PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null
}
if [ -z "$missing" ]; then
    # 1.18 knows nothing of prepared statements, 1.24 keeps them for its clients.
    unpack="sh $(dirname "$0")/unpack.sh"
    $unpack bookworm bookworm pgbouncer usr/sbin/pgbouncer
    $unpack trixie trixie pgbouncer usr/sbin/pgbouncer
    # The LTS. Only the unstable release has it, beside MariaDB below.
    $unpack mysql unstable mysql-server-core usr/sbin/mysqld usr/share/mysql \
        usr/lib/mysql/plugin
    $unpack prometheus bookworm prometheus usr/bin/prometheus usr/bin/promtool
    has pg_ctl || ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 ||
        missing=postgresql
    # The whole of mariadb-server would start one, now and with the machine.
    has mariadbd || has mysqld ||
        missing="$missing mariadb-server-core mariadb-client-core"
    has redis-server || missing="$missing redis-server"
    has haproxy || missing="$missing haproxy"
fi
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! has apt-get; then
    echo "Please install: $missing" >&2
    exit 1
fi
echo "Installing $missing"
# The tests start servers of their own: the packages shall not start one as well.
mkdir -p /etc/postgresql-common/createcluster.d /etc/systemd/system
echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/no-main.conf
for each in redis-server haproxy; do
    has "$each" || ln -sf /dev/null "/etc/systemd/system/$each.service"
done
export RUNLEVEL=1
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -qq -y --no-install-recommends $missing >/dev/null
# mariadb-server would have made it: no server runs as root.
if has mariadbd && ! getent passwd mysql >/dev/null; then
    useradd --system --user-group --home-dir /nonexistent --shell /usr/sbin/nologin mysql
fi
