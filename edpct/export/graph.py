"""Reading an ONNX graph that is to be changed, and refusing one that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from edpct.errors import ExportError

OLDEST_OPSET = 13  # per-channel Q/DQ


def read_graph(path: Path) -> onnx.ModelProto:
    """The whole graph, with weights that lie in files beside it.

    Raises:
        ExportError: no ONNX file or only part of one, weights that are not there or not finite, or too old an opset.
    """
    try:
        model = onnx.load(path)
    except (FileNotFoundError, onnx.checker.ValidationError) as error:
        if not path.exists():
            raise ExportError(f"There is no file {path}.", "Export it with: edpct export") from error
        raise ExportError(
            f"{path.name} keeps its weights in another file, which is not there.",
            "Copy that file too, into the same folder, or export it again.",
        ) from error
    except (DecodeError, OSError) as error:
        raise ExportError(
            f"{path.name} is not an ONNX model, or only part of one.", "Copy or export it again."
        ) from error
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST_OPSET:
        raise ExportError(
            f"{path.name} is of opset {opset}, and edpct needs {OLDEST_OPSET} or later.",
            "Export it with a later opset.",
        )
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE):
            values = onnx.numpy_helper.to_array(tensor)
            if not np.isfinite(values).all():
                raise ExportError(
                    f"{path.name}: the weights '{tensor.name}' hold NaN or infinity.", "Export a sound checkpoint."
                )
    return model
