# The recipes that CI runs, under the same names. `just --list` shows them.

# The profile of the two programs in the recipes below. CI sets EDGELLM_CARGO_PROFILE=dev, which the tests build anyway: its
# arithmetic is optimised too.
profile := env("EDGELLM_CARGO_PROFILE", "release")
programs := "target" / (if profile == "dev" { "debug" } else { profile })

# Everything CI runs, in its order.
ci: fmt lint build doc test compile aarch64 smoke clients

# Formatting, checked only.
fmt:
    cargo fmt --all --check

# Lints, warnings are errors.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The two programs; of the dev profile those that the tests build, whose dependencies have more features.
build:
    {{ if profile == "dev" { "cargo test --no-run" } else { "cargo build --profile " + profile } }} --workspace --locked

# API documentation, warnings are errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# The default model, checked by its SHA-256.
model: build
    {{ programs }}/edgellm pull smollm2:135m

# All tests. Those that need the default model fail without it here, instead of saying `skipped`.
test: model
    EDGELLM_REQUIRE_MODEL=1 cargo test --workspace --no-fail-fast

# Every default CUDA variant for six architectures, by NVRTC and without a GPU: it compiles, declares the instructions
# that it has, spills nothing, and needs what the committed table says.
compile: build
    {{ programs }}/bench compile --no-cache --check kernels/resources/defaults.toml

# Renews that table after a change to a kernel. It holds for NVRTC 13.0.
resources: build
    {{ programs }}/bench compile --no-cache --snapshot kernels/resources/defaults.toml

# The kernels with NEON and dot-product instructions, on an emulated processor. Debian: qemu-user, gcc-aarch64-linux-gnu,
# rustc-web and libstd-rust-web-dev:arm64. What reads the spaces is used once here: it is not optimised, to be built sooner.
aarch64:
    RUSTC="${AARCH64_RUSTC:-/usr/bin/rustc}" \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64 \
    cargo test --locked -p kernels --test conformance --target aarch64-unknown-linux-gnu --target-dir target/aarch64 \
        $(printf -- '--config profile.dev.package.%s.opt-level=0 ' antlr4rust cel harness-spec variants) \
        -- ad01 every_kernel_takes small_integers ad12 every_kernel_of_the_spaces

# The CUDA layer and every default CUDA variant on a GPU, that NVRTC gives what the tests expect of it, the engine on the GPU
# against the f64 reference and the real model's fixture, prompts without the library too, and the real model in every type of
# weights against its own decoded self. Tests of the engine print their figures.
test-gpu: model
    EDGELLM_REQUIRE_GPU=1 EDGELLM_REQUIRE_NVRTC=1 \
        cargo test -p kernels --test cuda_device --test cuda_target --test cuda_blas --test cuda_compile -- --test-threads=1
    EDGELLM_REQUIRE_GPU=1 EDGELLM_REQUIRE_NVRTC=1 EDGELLM_REQUIRE_MODEL=1 \
        cargo test --release -p engine --test cuda -- --test-threads=1 --nocapture
    EDGELLM_CUBLASLT=/none EDGELLM_REQUIRE_GPU=1 EDGELLM_REQUIRE_NVRTC=1 \
        cargo test --release -p engine --test cuda prompt -- --test-threads=1 --nocapture
    cargo run --release -p engine --example requantized -- "$({{ programs }}/edgellm pull smollm2:135m)" --device cuda:0

# Every default CUDA variant on one input under compute-sanitizer: shared memory that two threads race for, and accesses
# outside what was allocated. A minute or so for each tool.
sanitize: build
    for tool in racecheck memcheck; do \
        compute-sanitizer --target-processes all --tool $tool --error-exitcode 9 \
            {{ programs }}/bench verify --device cuda:0 --once --timeout 300 || exit 1; \
    done

# The README's run command, short, against the embedded peer; its output must be a valid record with a page.
smoke: model
    EDGELLM_CARGO_PROFILE={{ profile }} bash tests/smoke.sh

# The real `ollama` and `openai` Python clients against `edgellm serve`.
clients: model
    EDGELLM_BIN={{ programs }}/edgellm bash tests/clients/run.sh

# Criterion benchmarks of the kernels, for a person at a quiet machine.
bench:
    cargo bench --workspace
