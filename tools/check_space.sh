#!/usr/bin/env bash
# Says on stderr when the disk of folder $1, which need not exist yet, has less than $2 GB left: pip's own report of a
# full disk is a traceback, minutes later.
set -u

there=$(realpath --canonicalize-missing "$1")
until [ -e "$there" ]; do there=$(dirname "$there"); done
disk=($(df --output=avail,target --block-size=GB "$there" | tail -n 1))
[ "${disk[0]%GB}" -ge "$2" ] && exit 0
echo "$1 needs about $2 GB while it is made and ${disk[1]} has ${disk[0]%GB} GB left: free some, or put it on another disk (make VENV=/path/to/.venv)" >&2
exit 1
