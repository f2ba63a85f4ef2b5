# The recipes that CI runs, under the same names. `just --list` shows them.

# Everything CI runs, in its order.
ci: fmt lint build doc test smoke clients

# Formatting, checked only.
fmt:
    cargo fmt --all --check

# Lints, warnings are errors.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The two binaries, optimised.
build:
    cargo build --release --workspace --locked

# API documentation, warnings are errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# The default model, checked by its SHA-256.
model: build
    target/release/edgellm pull smollm2:135m

# All tests. Those that need the default model fail without it here, instead of saying `skipped`.
test: model
    EDGELLM_REQUIRE_MODEL=1 cargo test --workspace

# The README's run command, short, against the embedded peer; its output must be a valid record with a page.
smoke: model
    bash tests/smoke.sh

# The real `ollama` and `openai` Python clients against `edgellm serve`.
clients: model
    EDGELLM_BIN=target/release/edgellm bash tests/clients/run.sh

# Criterion benchmarks of the kernels, for a person at a quiet machine.
bench:
    cargo bench --workspace
