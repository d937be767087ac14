# One recipe a check. `just` lists them; each is a step of `.ci/run`, which has all of them in order.

_list:
    @just --list --unsorted

# everything a change has to pass, as CI has it (about 45 minutes on 2 cores)
ci *steps:
    .ci/run {{ steps }}

# what to run before a commit: a few minutes
check: format clippy test lint-architecture circles proto

# gateway, workers and nats-server on this machine, with demo stock
dev *flags:
    cargo run --release --bin gateway -- dev {{ flags }}

# unit, property and end-to-end tests; `just test NAME` runs those whose name contains it
test *name:
    cargo test --locked {{ name }}

# formatting, checked
format:
    .ci/run format

# formatting, done
fmt:
    cargo fmt --all

# lints, as errors
clippy:
    .ci/run clippy

# rustdoc, warnings as errors
doc:
    .ci/run doc

# release build of all programs, which the recipes below it need
release:
    .ci/run release

# the oldest Rust that Cargo.toml promises
msrv:
    .ci/run msrv

# imports, file sizes, names, purity: what no other tool checks
lint-architecture:
    .ci/run lint-architecture

# circles between modules of a crate
circles:
    .ci/run circles

# style and comments of the contract
proto:
    .ci/run buf proto

# whether clients of the contract before can go on
breaking:
    .ci/run buf breaking

# licences, sources, bans and advisories of dependencies
deny:
    .ci/run deny audit

# what the programs are made of, as CycloneDX
sbom:
    .ci/run sbom

# whether the fuzzers build; fuzz/run runs them
fuzz:
    .ci/run fuzz

# JSON of the transcoder against Python's json_format
judge:
    .ci/run judge

# the first command of the README as a user runs it
smoke: release
    .ci/run buf smoke

# the console in a browser
console: release
    .ci/run console

# everything in deploy/, by its own linters
deploy:
    .ci/run deploy

# every metric that a dashboard or an alert names exists
check-metrics:
    .ci/run test deploy check-metrics scrape

# SIGTERM to real processes, one after the other, under load
rolling: release
    .ci/run rolling

# the same behind nginx and HAProxy
proxies: release
    .ci/run proxies

# a real library's retry policy, while acknowledgements are lost
retries: release
    .ci/run retries

# gRPC's own interop client, through routes
interop: release
    .ci/run interop

# every command of documents, runbooks and hints, as its role
commands: release
    .ci/run commands

# all nodes lost, and docs/recover.md walked to its end
disaster: release
    .ci/run disaster

# the model of the reservation protocol, and the mistakes that it has to find
spec: release
    .ci/run spec mutants

# random faults under load, from a seed
soak: release
    .ci/run soak

# what faults come to, and the alerts that they fire
faults: release
    .ci/run faults alerts

# NATS away; five times as much load as there is room for
overload: release
    .ci/run outage overload

# attacks on every port, each process in a cgroup
flood: release
    .ci/run flood

# both images, and the compose file run with them (root, Debian)
containers: release
    .ci/run images containers
