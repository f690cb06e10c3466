#!/usr/bin/env bash
# Prints the path of a Python 3.12 that answers and can make environments, or says on stderr what is missing.
# Looks at $PYTHON, the PATH, and pyenv's versions (a pyenv shim exists for versions that are not selected, and fails).
set -u

probe='import sys, ensurepip, venv; sys.version_info[:2] == (3, 12) or sys.exit(1); print(sys.executable)'
candidates=(${PYTHON:+"$PYTHON"} python3.12 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python /usr/bin/python3.12)
for candidate in "${candidates[@]}"; do
    if path=$("$candidate" -c "$probe" 2>/dev/null); then
        echo "$path"
        exit 0
    fi
done

{
    echo "Python 3.12 is needed (ROS 2 Jazzy's version) and was not found: tried ${candidates[*]}."
    if /usr/bin/python3.12 -c "" 2>/dev/null; then
        echo "/usr/bin/python3.12 is there but can't make environments: apt install python3.12-venv"
    else
        echo "Ubuntu 24.04: apt install python3.12-venv. Elsewhere: pyenv install 3.12. Or name one: make PYTHON=/path/to/python3.12"
    fi
} >&2
exit 1
