#!/bin/sh
# Builds quickjs.wasm and its digest beside this script, or into the directory given: build.sh [OUT]
#
# Needs cargo (which fetches and verifies the sources), patch, and python3 (which installs the compiler). The same
# versions give the same bytes, in any directory.
set -eu
CRATE=libquickjs-ng-sys
CRATE_VERSION=0.14.0
STACK_BYTES=5242880

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
mkdir -p "$out"
out=$(cd "$out" && pwd)
. "$here/../zig.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/fetch/src"
: > "$work/fetch/src/lib.rs"
cat > "$work/fetch/Cargo.toml" <<END
[package]
name = "fetch"
version = "0.0.0"
edition = "2021"
[dependencies]
$CRATE = "=$CRATE_VERSION"
[workspace]
END
(cd "$work/fetch" && cargo vendor --quiet --versioned-dirs vendor > /dev/null)
cp -R "$work/fetch/vendor/$CRATE-$CRATE_VERSION/embed/quickjs" "$work/quickjs"

# The fast paths. A patch whose surroundings are not exactly as they were is refused.
for patch in "$here"/patches/*.patch; do
    patch --directory="$work/quickjs" --strip=1 --fuzz=0 --forward --silent --input="$patch" || {
        echo "build.sh: cannot apply $(basename "$patch")" >&2
        exit 1
    }
done

# WebAssembly keeps most of a frame on the host's stack, which the interpreter cannot measure: it measures the shadow
# stack in linear memory. The functions that recurse with little on the shadow stack are given a frame there too.
python3 - "$work/quickjs/quickjs.c" <<'END'
import re
import sys

PADS = {
    "js_parse_unary": 1024,
    "js_parse_statement_or_decl": 768,
    "json_parse_value": 256,
    "js_json_to_str": 256,
    "JS_FlattenIntoArray": 512,
    "js_call_bound_function": 512,
    "js_proxy_get": 512,
}
path = sys.argv[1]
with open(path, encoding="utf-8") as file:
    text = file.read()
for name, size in PADS.items():
    text, found = re.subn(r"(?m)^(static [^;{}]*\b%s\([^;{}]*\)\n\{)" % name, r"\1 STACK_PAD(%d);" % size, text)
    if found != 1:
        sys.exit(f"build.sh: cannot pad {name}: {found} definitions")
with open(path, "w", encoding="utf-8") as file:
    file.write(text)
END

cp "$here"/*.h "$here/shim.c" "$here/prelude.js" "$work/"
cd "$work"
zig cc -target wasm32-wasi -mexec-model=reactor -std=gnu23 -O3 -s -DNDEBUG -D_GNU_SOURCE -w \
    -ffile-prefix-map="$work"=. -fdebug-compilation-dir=. -Wl,-z,stack-size="$STACK_BYTES" \
    -Iquickjs -I. shim.c quickjs/libregexp.c quickjs/libunicode.c quickjs/dtoa.c -o quickjs.wasm
chmod 644 quickjs.wasm
cp quickjs.wasm "$out/quickjs.wasm"
cp quickjs/LICENSE "$out/LICENSE.quickjs"
(cd "$out" && sha256sum quickjs.wasm > quickjs.wasm.sha256)
