"""The ways to INT8 that :mod:`quantisers` compares: ours and those that a user would take instead.

All are given the same FP32 file and the same calibration windows; the two that hold a limit also the same labelled
windows, both of the train split.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray

from edpct.card import Card
from edpct.data.accuracy import measure_accuracy
from edpct.data.tiling import Window
from edpct.export.accuracy_aware import quantise_within
from edpct.export.onnx_export import INPUT, write_onnx
from edpct.progress import Progress

LIMIT = 0.5  # points of mIoU


@dataclass(frozen=True)
class Material:
    """What a way is given.

    Attributes:
        images: calibration windows, (H, W, 3), uint8.
        windows: labelled windows to hold the limit on.
    """

    source: Path
    target: Path
    card: Card
    images: Sequence[NDArray[np.uint8]]
    windows: Sequence[Window]
    progress: Progress

    def feeds(self) -> Iterator[NDArray[np.float32]]:
        """The calibration windows as the network takes them, (1, 3, H, W)."""
        return map(self.card.task.preprocessing.apply, self.images)

    def write(self, graph: onnx.ModelProto) -> None:
        write_onnx(graph, self.card.model_copy(update={"precision": "int8"}), self.target)


def edpct_guard(material: Material) -> None:
    """``edpct quantise --max-miou-drop 0.5``."""
    m = material
    quantise_within(m.source, m.target, m.card, m.images, m.windows, LIMIT, m.progress)


def plain_onnxruntime(material: Material) -> None:
    """``quant_pre_process``, then ``quantize_static`` in Q/DQ form, min/max, signed 8 bits, weights per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = ({INPUT: image} for image in material.feeds())

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.feeds, None)

    prepared = material.target.with_name(f".{material.target.stem}-prepared.onnx")
    try:
        quant_pre_process(str(material.source), str(prepared))
        quantize_static(
            str(prepared), str(material.target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    finally:
        prepared.unlink(missing_ok=True)
    material.write(onnx.load(material.target))


def plain_nncf(material: Material) -> None:
    """``nncf.quantize`` with its defaults."""
    import nncf

    with _quiet():
        material.write(
            nncf.quantize(onnx.load(material.source), _calibration(material), subset_size=len(material.images))
        )


def nncf_accuracy_control(material: Material) -> None:
    """``nncf.quantize_with_accuracy_control`` with its defaults and the limit that ours gets."""
    import nncf

    task = material.card.task

    def validate(graph: onnx.ModelProto, windows: Iterable[Window]) -> tuple[float, None]:
        """Where the engine is to run: OpenVINO, in float32, as edpct opens it."""
        core: Any = openvino.Core()
        network = core.compile_model(
            core.read_model(graph.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )

        def predict(image: NDArray[np.uint8]) -> NDArray[np.int64]:
            return np.asarray(network({INPUT: task.preprocessing.apply(image)})[0].argmax(1)[0])

        return measure_accuracy(predict, windows, task.num_classes, task.ignore_index).miou, None

    with _quiet():
        graph = nncf.quantize_with_accuracy_control(
            onnx.load(material.source), _calibration(material), nncf.Dataset(list(material.windows)), validate,
            max_drop=LIMIT / 100, subset_size=len(material.images),
        )  # fmt: skip
    material.write(graph)


def _calibration(material: Material) -> Any:
    import nncf

    preprocessing = material.card.task.preprocessing
    return nncf.Dataset(material.images, lambda image: {INPUT: preprocessing.apply(image)})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield


WAYS: dict[str, Callable[[Material], None]] = {
    "edpct, guarded": edpct_guard,
    "ONNX Runtime static": plain_onnxruntime,
    "NNCF": plain_nncf,
    "NNCF, accuracy control": nncf_accuracy_control,
}
