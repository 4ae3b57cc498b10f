# edpct on a Jetson with JetPack 6 (L4T r36.4: Ubuntu 22.04, Python 3.10, CUDA 12.6, TensorRT 10.3). Build it on the board:
#   docker/build.sh jetson
#   docker run --rm --runtime nvidia --group-add video -v "$PWD:/data" --user "$(id -u):$(id -g)" edpct:jetson \
#     build --onnx student-int8-fused.onnx --target jetson-orin
# Written against the packages' own metadata; neither built nor run on a Jetson yet.
#
# By the tag of an exact version; for builds that never change, append the digest of the day. What the last stage stands on
# can be smaller, nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime: see --build-arg RUNTIME=….
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
ARG RUNTIME=nvcr.io/nvidia/l4t-jetpack:r36.4.0

FROM ${BASE} AS build
ARG EXTRAS=cpu,geo
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv python3-dev g++ \
 && rm -rf /var/lib/apt/lists/*
# TensorRT and OpenCV are the system's: they know the board, and this OpenCV has GStreamer, which that of PyPI has not.
RUN python3 -m venv --system-site-packages /opt/edpct
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/usr/local/cuda/bin:$PATH
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# The packages first, for a hollow edpct, so that a change of edpct's own code does not fetch them again; all of them,
# also where the system has one, since the last stage may stand on another image. The constraints
# hold NumPy at 1.26: the system's OpenCV was compiled for NumPy 1. pycuda has no wheels; it compiles against the image's
# CUDA and links with the stub of the driver there. No cuRAND: edpct draws no numbers there.
RUN mkdir edpct && echo '__version__ = "0"' > edpct/__init__.py && touch README.md LICENSE \
 && echo 'CUDA_ENABLE_CURAND = False' > /etc/aksetup-defaults.py \
 && /opt/edpct/bin/pip install --ignore-installed --only-binary :all: --no-binary pycuda \
      -c constraints.txt ".[${EXTRAS}]" pycuda==2026.1
COPY README.md LICENSE ./
COPY edpct edpct
RUN /opt/edpct/bin/pip install --no-deps --force-reinstall .

FROM ${RUNTIME}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="edpct (Jetson)" \
      org.opencontainers.image.description="Segmentation engines built, measured and run on a Jetson with JetPack 6" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Python's side of TensorRT is kept at the version that is there, since it must be that of the libraries. GStreamer's
# parts for USB cameras and network streams; those for CSI cameras come from the board with --runtime nvidia.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends --no-upgrade python3 python3-libnvinfer python3-opencv \
      gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/edpct /opt/edpct
RUN install --directory --owner=10001 --group=44 /data
# The home and the caches are in /tmp, so that it runs under any --user, and with --read-only --tmpfs /tmp.
ENV PATH=/opt/edpct/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/tmp/.cache PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all
# By number, so that an orchestrator sees that it is not root; 44 is video, whose are the GPU and the cameras of a Jetson.
USER 10001:44
WORKDIR /data
# As process 1 Python does not hear SIGTERM; at SIGINT edpct ends in order and keeps what is finished.
STOPSIGNAL SIGINT
# Says that driver, GPU and packages are there. Seldom, since it disturbs what is being timed.
HEALTHCHECK --interval=10m --timeout=60s --retries=2 CMD ["edpct", "doctor", "--require", "tensorrt"]
ENTRYPOINT ["edpct"]
CMD ["--help"]
