#!/bin/sh
# Installs the system programs that the tests run against, where that is possible; else names them.
# No service is started, and none is left running.
set -eu

packages=""
need() { # need PACKAGE PROGRAM-OR-FILE
    case $2 in
    /*) [ -e "$2" ] && return 0 ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$2" >/dev/null && return 0 ;;
    esac
    packages="$packages $1"
}

need haproxy haproxy
need nginx nginx
need libnginx-mod-stream /usr/lib/nginx/modules/ngx_stream_module.so
need wrk wrk
need iperf3 iperf3
need curl curl
need openssl openssl
need redis-server redis-server
need socat socat
need iproute2 ss
need procps ps
need systemd systemd-analyze
need gcc cc # the hot path is compiled
need libc6-dev /usr/include/stdio.h
headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null) &&
    need python3-dev "$headers/Python.h"

# A package of Debian alone: asked for apart, so that its lack elsewhere stops none of the others.
browser=chromium-headless-shell
! command -v $browser >/dev/null || browser=""

[ -n "$packages$browser" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Not installed, so the tests that need them are skipped:$packages $browser" >&2
    echo "As root: apt install$packages $browser" >&2
    exit 0
fi

# invoke-rc.d asks this script before a package starts its service; 101 means "not allowed".
policy=/usr/sbin/policy-rc.d
saved=""
restore() {
    rm -f "$policy"
    [ -z "$saved" ] || mv "$saved" "$policy"
}
if [ -e "$policy" ]; then
    saved=$policy.before-proxyctl
    mv "$policy" "$saved"
fi
trap restore EXIT
trap 'exit 130' INT TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

install() { # install PACKAGE...
    if ! apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null; then
        echo "Could not install: $*; the tests that need them are skipped" >&2
    fi
}

echo "Installing:$packages $browser"
export DEBIAN_FRONTEND=noninteractive
# The lists of a fresh image are empty, those of an old one name files that are gone.
apt-get update -qq </dev/null >/dev/null || true # what is missing then says so itself
# shellcheck disable=SC2086 # the list is meant to be split
[ -z "$packages" ] || install $packages
[ -z "$browser" ] || install $browser
