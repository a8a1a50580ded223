# Short names for what CONTRIBUTING.md and docs/explanation/testing.md tell. A test compares them.

# List the recipes.
default:
    @just --list

# Build everything.
build:
    cargo build

# Run every test, on real servers.
test:
    cargo test

# Run the tests of the big binary whose names contain FILTER: `just suite leases::`.
suite filter:
    cargo test --test suite -- {{ filter }}

# Check the format, the lints and the documentation.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --all-features

# Run what CI runs, on a fresh Debian or Ubuntu machine.
ci:
    .ci/run

# Count words on a throw-away deployment.
demo:
    cargo run --release -- demo

# Run a benchmark: peers, fields, recovery or scale.
bench name *args:
    cargo bench --bench {{ name }} -- {{ args }}

# Fuzz a target (modules, emits or documents) for some seconds. Needs cargo-fuzz and a nightly compiler.
fuzz target seconds="60":
    AVIARY_FUZZ_SEEDS=$PWD/fuzz/corpus cargo test --test fuzzing
    cargo +nightly fuzz run --sanitizer none {{ target }} -- -max_total_time={{ seconds }}
