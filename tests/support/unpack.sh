#!/bin/sh
# Puts a server of a release of Debian, which need not be that of this machine, into
# .servers/FOLDER, with the libraries and the loader it was built for:
#     unpack.sh FOLDER RELEASE PACKAGE PROGRAM [FILES...]
# PROGRAM and FILES are paths of the package.
set -eu
cd "$(dirname "$0")/../.."
folder=$1 release=$2 package=$3
shift 3
[ ! -d ".servers/$folder" ] || exit 0
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format "\$(REPO_URI)" 2>/dev/null |
    grep -m 1 "/debian/\?\$" || true)}
if [ -z "$mirror" ] || [ ! -f "$keys" ]; then
    echo "Please install debian-archive-keyring and set DEBIAN_MIRROR to the address" \
        "of a mirror of Debian: $package comes from there." >&2
    exit 1
fi
echo "Fetching $package of $release"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/root" "$work/flat"
echo "deb [signed-by=$keys] $mirror $release main" >"$work/sources.list"
: >"$work/status"
# An apt that knows nothing of this machine's packages, and changes none.
cat >"$work/apt.conf" <<END
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$work";
Dir::State::status "$work/status";
Dir::Cache "$work";
APT::Sandbox::User "";
END
export APT_CONFIG="$work/apt.conf"
apt-get update -qq
libraries=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
    --no-breaks --no-replaces --no-enhances "$package" | grep "^lib" | grep -v perl | sort -u)
# shellcheck disable=SC2086
(cd "$work/archives" && apt-get download -qq "$package" $libraries)
for archive in "$work"/archives/*.deb; do
    dpkg-deb -x "$archive" "$work/root"
done
# Libraries and loader, not what PAM and OpenSSL would load.
find "$work/root" -path "*/lib/*-linux-*/*.so*" ! -type d \
    ! -path "*-linux-*/*/*" -exec cp -P {} "$work/flat" \;
for path in "$@"; do
    cp -R "$work/root/$path" "$work/flat"
done
mkdir -p .servers
part=$(mktemp -d ".servers/$folder.XXXXXX")
chmod 755 "$part"
mv "$work/flat" "$part/flat"
# Another process may have been faster.
[ -d ".servers/$folder" ] || mv "$part/flat" ".servers/$folder"
rm -rf "$part"
