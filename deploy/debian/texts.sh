#!/usr/bin/env bash
# Manual pages and completions, from the programs themselves, to where the packages' metadata has them.
#   deploy/debian/texts.sh target/release
set -Eeuo pipefail
programs=${1:?"which folder has the programs?"}
for name in gateway inventory-worker; do
    folder=target/texts/$name
    rm -rf "$folder"
    mkdir -p "$folder/man" "$folder/completions"
    "$programs/$name" man "$folder/man"
    gzip -9n "$folder"/man/*
    "$programs/$name" completions bash >"$folder/completions/$name"
    "$programs/$name" completions zsh >"$folder/completions/_$name"
    "$programs/$name" completions fish >"$folder/completions/$name.fish"
done
