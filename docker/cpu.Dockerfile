# edpct on a CPU board or server: bench, predict and doctor on ONNX Runtime and OpenVINO, no torch. Build it with
#   docker/build.sh cpu
# or, from the repository's root, docker build -f docker/cpu.Dockerfile -t edpct:cpu .
# Then, with an engine in this folder:
#   docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" edpct:cpu bench --engine student-int8.onnx --no-accuracy

# By the tag of an exact version. For builds that never change, append the digest of the day:
#   docker buildx imagetools inspect python:3.12.12-slim-bookworm
# Any Debian or Ubuntu with Python 3.11 or 3.12 and its venv module will do (--build-arg BASE=…).
ARG BASE=python:3.12.12-slim-bookworm

FROM ${BASE} AS build
ARG EXTRAS=cpu,geo,video
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# The packages first, for a hollow edpct, so that a change of edpct's own code does not fetch them again.
# Wheels only: nothing compiles here, and the last stage has no compiler.
RUN mkdir edpct && echo '__version__ = "0"' > edpct/__init__.py && touch README.md LICENSE \
 && python3 -m venv /opt/edpct \
 && /opt/edpct/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary :all: \
      -c constraints.txt ".[${EXTRAS}]"
COPY README.md LICENSE ./
COPY edpct edpct
RUN /opt/edpct/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --force-reinstall . \
 && /opt/edpct/bin/pip uninstall --quiet --yes setuptools pip \
 # Of OpenVINO, what edpct does not open: its GPU and NPU, and models of other frameworks than ONNX. 75 MB.
 && cd /opt/edpct/lib/python3*/site-packages/openvino/libs \
 && rm -f libopenvino_intel_gpu_plugin.so libopenvino_intel_npu_plugin.so cache.json \
      libopenvino_tensorflow*_frontend.so* libopenvino_py*_frontend.so* libopenvino_paddle_frontend.so* \
      libopenvino_jax_frontend.so* libopenvino_gguf_frontend.so*

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="edpct (CPU)" \
      org.opencontainers.image.description="Segmentation engines measured and run on ONNX Runtime and OpenVINO" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/edpct /opt/edpct
RUN install --directory --owner=10001 --group=10001 /data
# The home and the caches are in /tmp, so that it runs under any --user, and with --read-only --tmpfs /tmp.
ENV PATH=/opt/edpct/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/tmp/.cache PYTHONUNBUFFERED=1
# By number: no entry in /etc/passwd is needed, and an orchestrator sees that it is not root.
USER 10001:10001
WORKDIR /data
# As process 1 Python does not hear SIGTERM; at SIGINT edpct ends in order and keeps what is finished.
STOPSIGNAL SIGINT
# Doctor computes a small graph on both runtimes; seldom, since it disturbs what is being timed.
HEALTHCHECK --interval=10m --timeout=60s --retries=2 \
  CMD ["edpct", "doctor", "--require", "onnxruntime", "--require", "openvino"]
ENTRYPOINT ["edpct"]
CMD ["--help"]
