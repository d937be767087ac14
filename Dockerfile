# syntax=docker/dockerfile:1
# Two images from one build: --target gateway and --target inventory-worker. Both run as nobody in particular (65532), with
# a root that may be read-only: they write to no file.

# `dist` is what is shipped: one unit, with link-time optimisation. `release` builds in half the time and runs slower.
ARG PROFILE=dist

FROM rust:1.95-slim-bookworm AS chef
WORKDIR /src
# Symbols would be a quarter of an image. A panic's message names file and line without them.
ENV CARGO_PROFILE_DIST_STRIP=symbols CARGO_PROFILE_RELEASE_STRIP=symbols
# It runs for a second: nothing of it has to be fast but its own build.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo install --debug --locked --root /usr/local cargo-chef@0.1.78

# What the dependencies are: the manifests and the lock file, and nothing else of the sources.
FROM chef AS recipe
COPY . .
RUN cargo chef prepare --recipe-path /recipe.json

FROM chef AS build
ARG PROFILE
COPY --from=recipe /recipe.json /recipe.json
# A layer of its own, that is built again only when the recipe changes. It has to name what is built below.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo chef cook --recipe-path /recipe.json --profile "$PROFILE" --locked --no-default-features \
        -p gateway --bin gateway -p inventory-worker --bin inventory-worker
COPY . .
# `.git` is not here: whoever builds says which commit it is, by --build-arg GW_COMMIT=$(git rev-parse HEAD).
ARG GW_COMMIT
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo build --profile "$PROFILE" --locked --no-default-features \
        -p gateway --bin gateway -p inventory-worker --bin inventory-worker \
    && mkdir /out && cp "target/$PROFILE/gateway" "target/$PROFILE/inventory-worker" /out/

FROM gcr.io/distroless/cc-debian12:nonroot AS gateway
COPY --from=build /out/gateway /usr/local/bin/gateway
# For others than this container it wants TLS and known callers, or GW_INSECURE=true: see docs/security.md.
ENV GW_GRPC_ADDR=0.0.0.0:50051 GW_HTTP_ADDR=0.0.0.0:8080 GW_LOG_FORMAT=json
EXPOSE 50051 8080
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/gateway"]
CMD ["serve"]

FROM gcr.io/distroless/cc-debian12:nonroot AS inventory-worker
COPY --from=build /out/inventory-worker /usr/local/bin/inventory-worker
ENV GW_HEALTH_ADDR=0.0.0.0:50052 GW_HTTP_ADDR=0.0.0.0:8081 GW_LOG_FORMAT=json
EXPOSE 50052 8081
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/inventory-worker"]
CMD ["serve"]
