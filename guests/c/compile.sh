#!/bin/sh
# Builds a function in C or C++, with the standard library: compile.sh OUT.wasm FILE.c|FILE.cpp…
set -eu
[ $# -ge 2 ] || { echo "usage: compile.sh OUT.wasm FILE..." >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../zig.sh"
out=$1
shift
case $1 in
    *.c) set -- cc -std=c2x "$@" ;;
    *) set -- c++ -std=c++20 -fno-exceptions -fno-rtti "$@" ;;
esac
zig "$@" -o "$out" -I "$here" -target wasm32-wasi -mexec-model=reactor -O3 -s -Wl,-z,stack-size=1048576 -Wall -Wextra -Wno-unused-function \
    -Wno-unused-parameter
