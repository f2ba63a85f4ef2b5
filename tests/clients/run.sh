#!/usr/bin/env bash
# Runs the real `ollama` and `openai` Python clients against `edgellm serve` with the default model.
# The virtual environment lies under target/, and the server listens on a free port of the loopback interface.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

venv=target/client-tests-venv
stamp=$venv/.installed
if ! cmp -s tests/clients/requirements.txt "$stamp" 2>/dev/null; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet -r tests/clients/requirements.txt
    cp tests/clients/requirements.txt "$stamp"
fi
EDGELLM_BIN=${EDGELLM_BIN:-target/release/edgellm} "$venv/bin/pytest" -q -p no:cacheprovider tests/clients
