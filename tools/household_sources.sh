#!/usr/bin/env bash
# Models and photographs of the household recipes, from Debian's packages and without installing them. $1: folder to make.
# Needs Debian 12's package sources, as `apt-get update` reads them.
set -euo pipefail

models=(sweethome3d-furniture)
photographs=(
    gnome-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds mypaint-data-extras
    plasma-workspace-wallpapers ukui-wallpapers
)
target=${1:?usage: tools/household_sources.sh FOLDER}

mkdir -p "$target"
target=$(realpath "$target")
packages=$(mktemp -d)
trap 'rm -r "$packages"' EXIT
cd "$packages"
apt-get download --quiet "${models[@]}" "${photographs[@]}"
for deb in *.deb; do
    name=${deb%%_*}
    [[ " ${models[*]} " == *" $name "* ]] && kind=models || kind=photographs
    mkdir -p "$target/$kind/$name"
    dpkg -x "$deb" "$target/$kind/$name"
done
echo "$target: models/ and photographs/, $(du -sh "$target" | cut -f1). Licences: */*/usr/share/doc/*/copyright"
