#!/bin/sh
# Builds a function in AssemblyScript: build.sh OUT.wasm FILE.ts…
# asc is AVIARY_ASC, or on PATH (npm install -g assemblyscript).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || { echo "usage: build.sh OUT.wasm FILE.ts..." >&2; exit 2; }
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$here/aviary" "$work/aviary"

# Which of the files, job1 and so on, has the function. It stands at the beginning of a line.
has() {
    n=0
    for file in "$@"; do
        n=$((n + 1))
        if grep -Eq "^export function $name *(<|\()" "$file"; then
            [ -z "$job" ] || { echo "$file: another file has $name too" >&2; exit 1; }
            job=job$n
        fi
    done
    [ -n "$job" ]
}
stage() {
    name=$1 job= begin=begin
    shift
    has "$@" || return 0
    case $name in
        map) begin=beginMap call="while (next()) $job.map(doc()); endMap();" ;;
        combine | reduce) call="while (next()) result($job.$name(key(), values()));" ;;
        finalize) call="while (next()) result($job.finalize(key(), value()));" ;;
        reduceBegin) call="while (next()) $job.reduceBegin(keptKey());" ;;
        reduceNext) call="while (next()) $job.reduceNext(values());" ;;
        reduceEnd)
            echo "export function reduce_end(): void { result($job.reduceEnd()); }"
            return
            ;;
    esac
    export=$(echo "$name" | sed 's/^reduce\([BN]\)/reduce_\1/' | tr BN bn)
    echo "export function $export(ptr: usize, len: u32): void { $begin(ptr, len); $call }"
}

{
    echo 'import { begin, beginMap, doc, endMap, key, keptKey, next, result, value, values } from "aviary/glue";'
    echo 'export { aviary_abi_v1, aviary_alloc, aviary_sums } from "aviary/glue";'
    n=0
    for file in "$@"; do
        n=$((n + 1))
        cp "$file" "$work/"
        echo "import * as job$n from \"./$(basename "$file" .ts)\";"
    done
    for name in map combine reduce finalize reduceBegin reduceNext reduceEnd; do
        stage "$name" "$@"
    done
} >"$work/aviary-entry.ts"
cd "$work"
"${AVIARY_ASC:-asc}" aviary-entry.ts -o "$out" --path . -O3 --runtime minimal --exportStart _initialize \
    --use abort=~lib/aviary/host/aborted --use seed=~lib/aviary/host/seeded \
    --use console=~lib/aviary/host/console
