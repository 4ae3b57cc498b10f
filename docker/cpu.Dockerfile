# edpct on a CPU board or server: bench and doctor, no torch. Build from the repository's root:
#   docker build -f docker/cpu.Dockerfile -t edpct:cpu .
#   docker run --rm -v "$PWD:/data" edpct:cpu bench --engine /data/student-int8.onnx
FROM python:3.12-slim

COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY edpct /src/edpct
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[cpu]' && useradd --create-home edpct

USER edpct
WORKDIR /data
HEALTHCHECK CMD ["edpct", "doctor"]
ENTRYPOINT ["edpct"]
