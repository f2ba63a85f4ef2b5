#!/usr/bin/env bash
# The README's run command at three runs a side against the embedded peer: what a newcomer does first.
# Checks what they would look at: exit code, the files, a page that needs nothing from outside, a rebuild.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=target/smoke
profile=${EDGELLM_CARGO_PROFILE:-release}
bench=(cargo run --profile "$profile" --locked --quiet --)
[ "$profile" = dev ] && bench=(target/debug/bench)
rm -rf "$out"

"${bench[@]}" compare --runs 3 --against baseline --out "$out" >target/smoke.stdout
run=$(dirname "$(find "$out" -name run.json | head -n 1)")
[ -n "$run" ] || { echo "no run.json under $out" >&2; exit 1; }

grep -qi 'baseline' target/smoke.stdout || { echo "the output does not name its peer" >&2; exit 1; }
for file in run.json samples.jsonl report.html; do
    [ -s "$run/$file" ] || { echo "$run/$file is missing or empty" >&2; exit 1; }
done
ls "$run"/charts/*.svg >/dev/null
if grep -q 'http' "$run/report.html"; then
    echo "report.html refers to something outside itself" >&2
    exit 1
fi
lines=$(grep -c '"side":"engine"' "$run/samples.jsonl")
[ "$lines" -ge 3 ] || { echo "samples.jsonl has $lines runs of the engine, wanted 3 or more" >&2; exit 1; }

cp "$run/report.html" target/smoke-report.html
"${bench[@]}" report "$run" >/dev/null
cmp "$run/report.html" target/smoke-report.html || { echo "bench report rebuilt another page" >&2; exit 1; }
cat target/smoke.stdout
