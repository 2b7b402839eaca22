#!/bin/sh
# Runs inside a build: a C compiler, and the headers of Python where the base image does not bring them.
set -eu
packages="gcc libc6-dev"
headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "${headers}/Python.h" ] || packages="${packages} python3-dev"
apt-get update
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${packages}
rm -rf /var/lib/apt/lists/*
