# make demo: set up, then scenes -> teacher -> compress -> bench.   make test: set up, then lint, types and tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= demo
STUBS := $(VENV)/tensorrt-api/tensorrt_bindings/tensorrt.pyi

.PHONY: setup demo test lint bench image clean

setup: $(READY)

# uv installs what pip would, several times faster; it comes from the same registry. TensorRT itself is not there, but the
# stubs of its version 10 and the bindings of its version 11 are: types and tests read them, nothing imports them. (Some lines
# of the stubs are no Python: an argument called "in", one without default behind one with.)
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt --editable '.[compress,cpu,rtx,dev]'
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --constraint constraints.txt --no-deps --target $(VENV)/tensorrt-api \
	  tensorrt-stubs tensorrt-cu13-bindings || echo "NVIDIA's API cannot be had here: the tests against it are left out"
	-sed -i -E 's/\bin: /in_: /; s/channel_axis: int\) -> IScaleLayer/channel_axis: int = 0) -> IScaleLayer/' $(STUBS)
	touch $(READY)

# The main job, small: every stage is real, the training is short.
demo: setup
	$(BIN)/edpct doctor
	$(BIN)/edpct data scenes --out $(DEMO)/scenes --train 40 --val 8 --size 256
	$(BIN)/edpct train --data $(DEMO)/scenes --out $(DEMO)/teacher --recipe benchmarks/recipes/demo-train.toml --size 256
	$(BIN)/edpct compress --teacher $(DEMO)/teacher/teacher.pt --out $(DEMO)/run --recipe benchmarks/recipes/demo-compress.toml
	$(BIN)/edpct bench --engine $(DEMO)/run/student-int8.onnx --engine $(DEMO)/run/student.onnx --engine $(DEMO)/teacher/teacher.pt \
	  --data $(DEMO)/scenes --seconds 1 --rounds 2 --report $(DEMO)/bench.html --json $(DEMO)/bench.json

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A worker that dies is named, and ends the run: with another in its place, pytest-xdist may wait for ever.
test: setup lint
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# The Dubai run of the README: hours; see benchmarks/README.md.
bench: setup
	$(BIN)/python benchmarks/dubai.py --data "$(DATA)"

# IMAGE=cpu, gpu, or jetson (on the board); with Docker, or with buildah where no Docker answers.
IMAGE ?= cpu
image:
	docker/build.sh $(IMAGE)

clean:
	rm -rf $(VENV) $(DEMO)
