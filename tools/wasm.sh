#!/bin/sh
# Prints a folder with the WebAssembly that the tests and the bench run, built from tests/wasm with a C compiler for WASI,
# which is fetched once, in a pinned version.
set -eu

TOOLS=${1:-target/tools}
ZIG=0.16.0

mkdir -p "$TOOLS"
TOOLS=$(cd "$TOOLS" && pwd)
zig=$TOOLS/zig-$ZIG
if [ ! -e "$zig/done" ]; then
    echo "fetching zig $ZIG, a C compiler for WASI …" >&2
    folder=$(mktemp -d "$TOOLS/fetch.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    python3 -m venv "$folder" >&2
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "ziglang==$ZIG" >&2
    touch "$folder/done"
    rm -rf "$zig"
    mv "$folder" "$zig"
fi

modules=$TOOLS/wasm
mkdir -p "$modules"
for source in "$(dirname "$0")"/../tests/wasm/*.c; do
    module=$modules/$(basename "$source" .c).wasm
    if [ ! "$module" -nt "$source" ]; then
        case $source in
            *http.c) flags="-mexec-model=reactor" ;;
            *) flags= ;;
        esac
        # shellcheck disable=SC2086 # words
        ZIG_GLOBAL_CACHE_DIR=$zig/cache ZIG_LOCAL_CACHE_DIR=$zig/cache \
            "$zig"/lib/python3*/site-packages/ziglang/zig cc -target wasm32-wasi -Os -s $flags "$source" -o "$module.new" >&2
        mv "$module.new" "$module"
    fi
done
echo "$modules"
