#!/usr/bin/env bash
# Real clients against a real server: the PyPI packages `ollama` and `openai` talk to `edgellm serve`.
#
# EDGELLM_BIN         the program (default: target/release/edgellm, which is built)
# EDGELLM_TEST_MODEL  the model (default: the one that `edgellm pull smollm2:135m` stored; pulled if it is not there)
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
bin=${EDGELLM_BIN:-}
if [ -z "$bin" ]; then
    cargo build --release -p engine --bin edgellm
    bin=$target/release/edgellm
fi

model=${EDGELLM_TEST_MODEL:-}
if [ -z "$model" ]; then
    model=$("$bin" pull smollm2:135m)
fi

# The packages live beside the build and not in the system or the repository.
venv=$target/clients-venv
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt

EDGELLM_BIN=$(realpath "$bin") EDGELLM_TEST_MODEL=$(realpath "$model") \
    "$venv/bin/python" -m pytest -q -p no:cacheprovider tests/clients "$@"
