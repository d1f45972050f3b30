# Filbert in a container: docker build -t filbert . && docker run -p 11211:11211 filbert -m 512

# The Rust of rust-toolchain.toml, on the Debian that the binary then runs on: it needs the C library it was linked
# with, or a newer one.
FROM rust:1.95.0-bookworm AS build
# The toolchain that the image has. rust-toolchain.toml would have rustup fetch what only developers need.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /filbert
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/filbert/target \
    cargo build --profile dist --locked && cp target/dist/filbert /usr/local/bin/

FROM debian:bookworm-slim
RUN useradd --system --no-create-home filbert
COPY --from=build /usr/local/bin/filbert /usr/local/bin/
# For charts and scripts that start memcached by its name: "memcached -m 64" as a container's command.
RUN ln -s filbert /usr/local/bin/memcached
USER filbert
# A container has its own loopback address, where nobody would reach it. Who may connect is decided by which ports are
# published.
ENV FILBERT_LISTEN=*
# Clients, other nodes.
EXPOSE 11211 11212
# Whether clients may be sent here; without HTTP (--http-listen off, or another port) say --no-healthcheck. There is no curl
# in this image: bash asks.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=2 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/11280 && printf 'GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && grep -q '^HTTP/1.1 200 ' <&3"]
ENTRYPOINT ["filbert"]
