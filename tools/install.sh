#!/usr/bin/env bash
# pip install into an environment, in the versions of constraints.txt. $1: the environment's folder; the rest goes to pip.
set -eu
environment=$1
shift

# pip takes whatever has metadata for whole, also what a killed run had half copied. It writes INSTALLER after the files, so
# metadata without one is removed, and pip installs that package over its own remains.
for metadata in "$environment"/lib/python3.12/site-packages/*.dist-info; do
    if [ -d "$metadata" ] && [ ! -e "$metadata/INSTALLER" ]; then
        echo "$(basename "$metadata" .dist-info) was broken off, installing it again"
        rm -r "$metadata"
    fi
done

quiet=()
[ -t 1 ] || quiet=(--quiet)  # a terminal gets pip's progress bars
exec "$environment/bin/python" -m pip install "${quiet[@]}" --disable-pip-version-check --constraint constraints.txt "$@"
