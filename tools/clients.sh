#!/bin/sh
# Prints a folder with clients of AWS Lambda that the tests call fnbus with: a Python environment (`bin/python`: boto3,
# the aws cli, the runtime client) and `node_modules` (the JavaScript SDK, the runtime client without its native part, which
# would have to be compiled). Fetched once, in pinned versions. Beside it, `rust/debug/bootstrap`: a program with the runtime
# client for Rust, built when it has changed.
set -eu

TOOLS=${1:-target/tools}
WANTED="boto3==1.44.5 awscli==1.46.3 awslambdaric==4.2.2 snapshot-restore-py==1.0.0"
MODULES="@aws-sdk/client-lambda@3.1164.0 aws-lambda-ric@3.3.0"

mkdir -p "$TOOLS"
TOOLS=$(cd "$TOOLS" && pwd)
clients=$TOOLS/clients
if [ "$(cat "$clients/wanted" 2>/dev/null)" != "$WANTED $MODULES" ]; then
    echo "fetching clients of AWS Lambda …" >&2
    folder=$(mktemp -d "$TOOLS/fetch.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    python3 -m venv "$folder" >&2
    # shellcheck disable=SC2086 # words
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: $WANTED >&2
    # shellcheck disable=SC2086 # words
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" $MODULES >&2
    echo "$WANTED $MODULES" >"$folder/wanted"
    rm -rf "$clients"
    mv "$folder" "$clients"
fi
CARGO_TARGET_DIR=$TOOLS/rust ${CARGO:-cargo} build --quiet --locked --manifest-path "$(dirname "$0")/rust/Cargo.toml" >&2
echo "$clients"
