# edpct on a desktop with an NVIDIA RTX GPU: plans of TensorRT for RTX are built, benched and run; ONNX files on the CPU.
#   docker/build.sh gpu
#   docker run --rm --gpus all -v "$PWD:/data" --user "$(id -u):$(id -g)" edpct:gpu \
#     build --onnx student-int8-fused.onnx --target rtx
# Needs the NVIDIA Container Toolkit and a driver for CUDA 13 (580 or later). Built without a GPU; not yet run on one.
#
# The base is a plain Python, not nvidia/cuda: the toolkit brings the driver's libcuda.so.1 into the container, and
# TensorRT for RTX has the rest of CUDA that it needs inside.

# By the tag of an exact version; for builds that never change, append the digest of the day.
ARG BASE=python:3.12.12-slim-bookworm

FROM ${BASE} AS build
ARG EXTRAS=rtx,nvml,cpu,geo,video
# The full TensorRT, for GPUs that are no RTX (H100, GB200) and plans of the target tensorrt: 'tensorrt-cu13==11.4.0.106'.
# On PyPI its libraries are a stub that fetches them, some GB, from NVIDIA's own index.
ARG TENSORRT=
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ python3-dev \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/edpct
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# pycuda has no wheels. All that it needs of a CUDA toolkit is headers, which PyPI has; those of 13.0, so that it asks
# for nothing that the oldest driver for CUDA 13 does not have. It links with the driver, which no build has: an
# empty library of its name stands in, and is not left out as needless. No cuRAND: edpct draws no numbers there.
WORKDIR /cuda
RUN /opt/edpct/bin/pip install --no-deps --target . \
      nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88 nvidia-cuda-profiler-api==13.0.85 \
 && echo | gcc -shared -x c - -Wl,-soname,libcuda.so.1 -o libcuda.so \
 && printf '%s\n' "CUDA_ROOT = '/cuda/nvidia/cu13'" "CUDA_INC_DIR = ['/cuda/nvidia/cu13/include']" \
      "CUDADRV_LIB_DIR = ['/cuda']" "CUDA_ENABLE_CURAND = False" > /etc/aksetup-defaults.py \
 && LDFLAGS=-Wl,--no-as-needed /opt/edpct/bin/pip wheel --no-deps --wheel-dir wheels pycuda==2026.1
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# The packages first, for a hollow edpct, so that a change of edpct's own code does not fetch them again.
RUN mkdir edpct && echo '__version__ = "0"' > edpct/__init__.py && touch README.md LICENSE \
 && /opt/edpct/bin/pip install -c constraints.txt ".[${EXTRAS}]" /cuda/wheels/*.whl ${TENSORRT}
COPY README.md LICENSE ./
COPY edpct edpct
RUN /opt/edpct/bin/pip install --no-deps --force-reinstall . \
 && /opt/edpct/bin/pip uninstall --quiet --yes setuptools pip \
 # Of OpenVINO, what edpct does not open: its GPU and NPU, and models of other frameworks than ONNX. 75 MB.
 && cd /opt/edpct/lib/python3*/site-packages/openvino/libs \
 && rm -f libopenvino_intel_gpu_plugin.so libopenvino_intel_npu_plugin.so cache.json \
      libopenvino_tensorflow*_frontend.so* libopenvino_py*_frontend.so* libopenvino_paddle_frontend.so* \
      libopenvino_jax_frontend.so* libopenvino_gguf_frontend.so*

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="edpct (GPU)" \
      org.opencontainers.image.description="Segmentation engines built, measured and run on TensorRT for RTX" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/edpct /opt/edpct
RUN install --directory --owner=10001 --group=10001 /data
# What the NVIDIA Container Toolkit shall bring: the driver's library and NVML. Home and caches are in /tmp, so that
# it runs under any --user, and with --read-only --tmpfs /tmp; mount a folder at /tmp/.cache to keep compiled kernels.
ENV PATH=/opt/edpct/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/tmp/.cache PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# By number: no entry in /etc/passwd is needed, and an orchestrator sees that it is not root.
USER 10001:10001
WORKDIR /data
# As process 1 Python does not hear SIGTERM; at SIGINT edpct ends in order and keeps what is finished.
STOPSIGNAL SIGINT
# Says that driver, GPU and packages are there. Seldom, since it disturbs what is being timed.
HEALTHCHECK --interval=10m --timeout=60s --retries=2 CMD ["edpct", "doctor", "--require", "tensorrt-rtx"]
ENTRYPOINT ["edpct"]
CMD ["--help"]
