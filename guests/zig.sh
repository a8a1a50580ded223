# Sourced by the build scripts: defines zig, at one version, so that a build gives the same bytes everywhere.
# AVIARY_ZIG_DIR is where it is installed if Python has none of that version.
ZIG_VERSION=0.15.2
AVIARY_ZIG_DIR=${AVIARY_ZIG_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/aviary/zig-$ZIG_VERSION}
if [ "$(python3 -m ziglang version 2>/dev/null)" = "$ZIG_VERSION" ]; then
    ZIG_PYTHON=python3
else
    ZIG_PYTHON=$AVIARY_ZIG_DIR/bin/python3
    if [ "$("$ZIG_PYTHON" -m ziglang version 2>/dev/null)" != "$ZIG_VERSION" ]; then
        python3 -m venv "$AVIARY_ZIG_DIR"
        "$ZIG_PYTHON" -m pip install --quiet --disable-pip-version-check "ziglang==$ZIG_VERSION"
    fi
fi
zig() {
    "$ZIG_PYTHON" -m ziglang "$@"
}
