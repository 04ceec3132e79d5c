#!/bin/sh
# Puts the PgBouncer of a release of Debian, which need not be that of this machine, into
# .servers/, with the libraries and the loader it was built for: `pgbouncer.sh bookworm`.
set -eu
cd "$(dirname "$0")/../.."
[ ! -d ".servers/$1" ] || exit 0
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format "\$(REPO_URI)" 2>/dev/null |
    grep -m 1 "/debian/\?\$" || true)}
if [ -z "$mirror" ] || [ ! -f "$keys" ]; then
    echo "Please install debian-archive-keyring and set DEBIAN_MIRROR to the address" \
        "of a mirror of Debian: PgBouncer comes from there." >&2
    exit 1
fi
echo "Fetching PgBouncer of $1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/root" "$work/flat"
echo "deb [signed-by=$keys] $mirror $1 main" >"$work/sources.list"
: >"$work/status"
# An apt that knows nothing of this machine's packages, and changes none.
cat >"$work/apt.conf" <<EOF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$work";
Dir::State::status "$work/status";
Dir::Cache "$work";
APT::Sandbox::User "";
EOF
export APT_CONFIG="$work/apt.conf"
apt-get update -qq
libraries=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
    --no-breaks --no-replaces --no-enhances pgbouncer | grep "^lib" | grep -v perl | sort -u)
# shellcheck disable=SC2086
(cd "$work/archives" && apt-get download -qq pgbouncer $libraries)
for package in "$work"/archives/*.deb; do
    dpkg-deb -x "$package" "$work/root"
done
# Libraries and loader, not what PAM and OpenSSL would load.
find "$work/root" -path "*/lib/*-linux-*/*.so*" ! -type d \
    ! -path "*-linux-*/*/*" -exec cp -P {} "$work/flat" \;
cp "$work/root/usr/sbin/pgbouncer" "$work/flat"
mkdir -p .servers
rm -rf ".servers/$1.part"
mv "$work/flat" ".servers/$1.part"
mv ".servers/$1.part" ".servers/$1"
