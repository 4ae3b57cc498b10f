"""torch to ONNX: exported by dynamo, simplified where that succeeds, its card written into the metadata."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from edpct.card import CARD_KEY, Card
from edpct.errors import ExportError
from edpct.models.zoo import first_line
from edpct.progress import Progress
from edpct.recipe import ExportSettings

INPUT, OUTPUT = "image", "logits"
SIMPLIFY_SECONDS = 300
LARGEST_BATCH = 1024  # of an open batch axis
STRIDE = 32  # an open height or width is a multiple of it
LARGEST_SIDE = 8192  # pixels
COLOURING = re.compile(r"\x1b\[[0-9;]*m")  # escape codes of a terminal
# onnxsim would import PyTorch, for a quantiser that is not needed here, and that takes longer than all else.
ONNXSIM = "import sys; sys.modules['torch'] = None; import onnxsim; onnxsim.main()"


def export_onnx(model: nn.Module, card: Card, path: Path, settings: ExportSettings, progress: Progress) -> None:
    """Write ``model`` as an ONNX file at the card's input size, with batch 1 unless the settings leave the batch open.

    Input ``image`` (1, 3, H, W) float32, normalised as the card says; output ``logits`` (1, C, H, W) float32. Where the
    settings leave the size open, H and W are the card's or any other multiple of 32.

    Raises:
        ExportError: torch cannot export the network, or the graph is not valid ONNX.
    """
    size = card.task.preprocessing
    # An open axis needs an example of two: the exporter takes 1 for a constant.
    example = torch.zeros(2 if settings.open_batch else 1, 3, size.height, size.width)
    open_axes = {0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)} if settings.open_batch else {}
    if settings.open_size:
        for axis, name in ((2, "rows"), (3, "columns")):
            open_axes[axis] = STRIDE * torch.export.Dim(name, min=1, max=LARGEST_SIDE // STRIDE)
    axes = (open_axes,) if open_axes else None
    raw = path.with_name(f".{path.name}.raw")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about its own internals
            program = torch.onnx.export(
                model.eval(), (example,), dynamo=True, opset_version=settings.opset,
                input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=axes, verbose=False,
            )  # fmt: skip
        onnx.save(program.model_proto, raw)
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"torch cannot export {card.network} to ONNX: {_reason(error)}.") from error
    try:
        graph = _simplified(raw, progress) if settings.simplify else onnx.load(raw)
    finally:
        raw.unlink(missing_ok=True)
    write_onnx(graph, card, path)


def _reason(error: BaseException) -> str:
    """What went wrong in the exporter; above that stands only in which of its steps, coloured for a terminal."""
    while error.__cause__ is not None:
        error = error.__cause__
    return COLOURING.sub("", first_line(error))


def write_onnx(graph: onnx.ModelProto, card: Card, path: Path) -> None:
    """Write a checked graph with its card, under a temporary name and then renamed.

    Raises:
        ExportError: the graph is not valid ONNX.
    """
    kept = {entry.key: entry.value for entry in graph.metadata_props if entry.key != CARD_KEY}
    onnx.helper.set_model_props(graph, {**kept, CARD_KEY: card.model_dump_json()})
    try:
        onnx.checker.check_model(graph)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"The graph of {path.name} is not valid ONNX: {str(error).splitlines()[0]}") from error
    partial = path.with_name(f".{path.name}.partial")
    onnx.save(graph, partial)
    partial.replace(path)


def _simplified(raw: Path, progress: Progress) -> onnx.ModelProto:
    """The graph after onnxsim, or as it was where onnxsim fails; it has crashed processes, hence one of its own."""
    simple = raw.with_suffix(".simple")
    command = [sys.executable, "-c", ONNXSIM, str(raw), str(simple)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SIMPLIFY_SECONDS, check=False)
        if done.returncode == 0 and simple.exists():
            return onnx.load(simple)
        progress.say(f"onnxsim failed (exit {done.returncode}); going on with the graph as exported.")
    except subprocess.TimeoutExpired:
        progress.say(f"onnxsim took over {SIMPLIFY_SECONDS} s; going on with the graph as exported.")
    finally:
        simple.unlink(missing_ok=True)
    return onnx.load(raw)
