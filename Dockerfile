# Forgeway in a container. CPU by default:
#   docker build -t forgeway .
# With CUDA and TensorRT (needs the NVIDIA container runtime to run):
#   docker build -t forgeway:gpu --build-arg ACCELERATOR=gpu .
# The base can be replaced by any image with Python 3.12 and a glibc: --build-arg BASE=...
ARG BASE=python:3.12-slim-trixie

FROM ${BASE} AS builder
ARG ACCELERATOR=cpu
WORKDIR /build
COPY lock/${ACCELERATOR}.txt lock/dev.txt lock/
# Locked with hashes: what is installed is what was tested, or the build fails. setuptools only builds our wheel.
RUN python -m venv /opt/forgeway \
 && /opt/forgeway/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r "lock/${ACCELERATOR}.txt" \
 && awk '/^[a-z]/ { wanted = /^setuptools==/ } wanted' lock/dev.txt > lock/build.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r lock/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY model_store model_store
COPY compilers compilers
COPY gateway gateway
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/forgeway/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /wheels/*.whl

FROM ${BASE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="forgeway" \
      org.opencontainers.image.description="A model-serving gateway that compiles every model on ingest and serves the fastest variant it has proven right" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/forgeway/forgeway"
RUN groupadd --gid 65532 forgeway \
 && useradd --uid 65532 --gid 65532 --home-dir /data --no-create-home --shell /usr/sbin/nologin forgeway \
 && install -d -o 65532 -g 65532 -m 0750 /data
COPY --from=builder /opt/forgeway /opt/forgeway
ENV PATH=/opt/forgeway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    FORGEWAY_DATA=/data
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/live', timeout=4)"]
# Beyond loopback the gateway insists on API keys: make one with `forgeway keys create` in this container.
ENTRYPOINT ["forgeway"]
CMD ["serve", "--host", "0.0.0.0"]
