#!/bin/sh
# Builds the C guests beside their sources, or into the directory given: build.sh [OUT]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
mkdir -p "$out"
out=$(cd "$out" && pwd)
. "$here/../zig.sh"
cd "$here"
for guest in sum_by_customer units_by_sku word_count; do
    zig cc -target wasm32-freestanding -std=c2x -O3 -s -Wall -Wextra -Wno-unused-function -nostdlib -fno-builtin \
        -ffile-prefix-map="$here"=. -Wl,--no-entry -Wl,-z,stack-size=16384 "$guest.c" -o "$out/$guest.wasm"
    chmod 644 "$out/$guest.wasm"
done
