#!/usr/bin/env bash
# Says on stderr what the interface package lacks to be compiled: a C++ compiler, Python's headers. $1: the interpreter.
set -u

missing=()
for compiler in "${CC:-cc}" "${CXX:-c++}"; do
    command -v "$compiler" >/dev/null || missing+=("$compiler (apt install build-essential)")
done
headers=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -e "$headers/Python.h" ] || missing+=("$headers/Python.h (apt install python3.12-dev)")

[ ${#missing[@]} -eq 0 ] && exit 0
printf 'Compiling monet_perception_msgs needs:\n' >&2
printf '  %s\n' "${missing[@]}" >&2
exit 1
