# The gateway's image, for amd64 and arm64:  docker build -t portcullis .
#
# BINARY chooses where the program comes from: `compiled` here (the default), or `prebuilt`, which takes what lies in
# target/image (conf/packaging/image puts it there) and compiles nothing. Both images are the same but for that.
ARG BINARY=compiled
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
# libc, libgcc, libstdc++ and CA certificates, as user 65532, for both architectures; no shell, no package manager.
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS tools
# BoringSSL is C++ built by cmake, its patches are put in by git, and its bindings are generated. The bill of materials is
# written by Python.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake g++ git libclang-dev make python3 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# Compiled with an empty program, and so only when Cargo.toml or Cargo.lock change.
FROM tools AS dependencies
COPY Cargo.toml Cargo.lock ./
COPY conf/packaging/sources conf/packaging/sources
RUN conf/packaging/sources && cargo build --locked --release && rm -rf src benches target/release/.fingerprint/portcullis-*

FROM dependencies AS compiled
COPY . .
RUN cargo build --locked --release \
    && mkdir -p /image/usr/bin /image/usr/share/portcullis /image/var/lib/portcullis \
    && cp target/release/portcullis /image/usr/bin/ \
    && conf/packaging/sbom > /image/usr/share/portcullis/sbom.cdx.json

FROM scratch AS prebuilt
COPY target/image /image

# hadolint ignore=DL3006
FROM ${BINARY} AS chosen

# hadolint ignore=DL3006
FROM ${RUN_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Portcullis" \
      org.opencontainers.image.description="An mTLS edge gateway for container registries" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=chosen /image/usr /usr
# For state_directory, or whatever must outlive the container: a volume here belongs to the gateway's user.
COPY --from=chosen --chown=65532:65532 /image/var/lib/portcullis /var/lib/portcullis
USER 65532:65532
EXPOSE 443 9090
# Transfers end first, for at most drain.grace: stop it with more time than that (docker stop --time).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["/usr/bin/portcullis", "healthcheck"]
ENTRYPOINT ["/usr/bin/portcullis"]
CMD ["serve"]
