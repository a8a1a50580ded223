#!/bin/sh
# Builds a function in Zig: build.sh OUT.wasm FILE.zig…
set -eu
[ $# -ge 2 ] || { echo "usage: build.sh OUT.wasm FILE.zig..." >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../zig.sh"
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/aviary.zig" "$here/aviary_sums.zig" "$work/"
mkdir "$work/job"
cp "$@" "$work/job/"

# The root of the module names the functions that the files have, so that each gets its export, and the options.
{
    cat <<'ROOT'
const aviary = @import("aviary");
pub const panic = aviary.panic;
pub const std_options: @import("std").Options = .{ .logFn = aviary.logFn };
comptime {
    _ = aviary;
}
ROOT
    for file in "$@"; do
        for name in map combine reduce finalize reduceBegin reduceNext reduceEnd; do
            if grep -Eq "^pub fn $name *\(" "$file"; then
                echo "pub const $name = @import(\"$(basename "$file")\").$name;"
            fi
        done
        if grep -Eq "^pub const aviary_options *(:|=)" "$file"; then
            echo "pub const aviary_options = @import(\"$(basename "$file")\").aviary_options;"
        fi
    done
} >"$work/job/root.zig"
cd "$work/job"
zig build-exe -target wasm32-freestanding -O ReleaseSafe -fstrip -fno-entry -rdynamic --stack 65536 \
    --dep aviary -Mroot=root.zig -Maviary=../aviary.zig -femit-bin=job.wasm
cp job.wasm "$out"
