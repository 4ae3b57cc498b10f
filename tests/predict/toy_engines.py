"""Small engines whose answer is known: the class of a pixel is that of its greatest normalised channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edpct.card import Card
from edpct.export.fuse import fuse
from edpct.export.onnx_export import write_onnx
from edpct.recipe import FuseSettings
from edpct.task import ClassInfo, Preprocessing, Task

SIDE = 32
COLOURS = ((200, 0, 0), (0, 150, 0), (0, 0, 100))
TASK = Task(
    classes=tuple(ClassInfo(name=name, colour=colour) for name, colour in zip("abc", COLOURS, strict=True)),
    preprocessing=Preprocessing(height=SIDE, width=SIDE),
)


def write_engine(folder: Path, batch: int | str = 1, fused: bool = False, task: Task = TASK) -> Path:
    """Write such an engine; ``batch`` is a number or a name (open), ``fused`` puts normalisation and argmax inside."""
    card = Card(network="Toy", task=task, parameters=0, macs=0)
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3, SIDE, SIDE]) for name in ("image", "logits")
    ]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["logits"])], "toy", ports[:1], ports[1:])
    plain, whole = folder / f"toy-{batch}.onnx", folder / f"toy-{batch}-fused.onnx"
    write_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), card, plain)
    if fused:
        fuse(plain, whole, card, FuseSettings())
    return whole if fused else plain


def expected_classes(image: NDArray[np.uint8], task: Task = TASK) -> NDArray[np.int64]:
    """What those engines say of an image (H, W, 3)."""
    pre = task.preprocessing
    return ((image / 255.0 - pre.mean) / pre.std).argmax(-1)
