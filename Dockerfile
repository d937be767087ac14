# syntax=docker/dockerfile:1
# Two images from one build: --target gateway and --target inventory-worker.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The caches keep dependencies from one build to the next; the binaries are copied out of the mount.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked -p inventory-worker --bin inventory-worker && \
    cargo build --profile dist --locked -p gateway --no-default-features --bin gateway && \
    mkdir /out && cp target/dist/gateway target/dist/inventory-worker /out/

FROM gcr.io/distroless/cc-debian12:nonroot AS gateway
COPY --from=build /out/gateway /usr/local/bin/gateway
ENV GRPC_ADDR=0.0.0.0:50051 HTTP_ADDR=0.0.0.0:8080 LOG_FORMAT=json
EXPOSE 50051 8080
ENTRYPOINT ["/usr/local/bin/gateway"]
CMD ["serve"]

FROM gcr.io/distroless/cc-debian12:nonroot AS inventory-worker
COPY --from=build /out/inventory-worker /usr/local/bin/inventory-worker
ENV HEALTH_ADDR=0.0.0.0:50052 LOG_FORMAT=json
EXPOSE 50052
ENTRYPOINT ["/usr/local/bin/inventory-worker"]
CMD ["serve"]
