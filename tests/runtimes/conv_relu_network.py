"""One small network whose answer NumPy can compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 32


@dataclass(frozen=True)
class ConvRelu:
    """relu(3x3 convolution, padding 1): ``image`` (1, 3, 32, 32) to ``logits`` (1, 2, 32, 32), float32."""

    path: Path
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def image(self, seed: int = 0) -> NDArray[np.float32]:
        return np.random.default_rng(seed).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)

    def answer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        sums = np.einsum("nchwij,ocij->nohw", windows, self.weight) + self.bias[None, :, None, None]
        return np.maximum(sums, 0).astype(np.float32)

    def save(self, path: Path, batch: int | str = 1) -> Path:
        """Write the network as an ONNX file; a batch that is a name leaves that axis open. Needs the package onnx."""
        import onnx

        float32 = onnx.TensorProto.FLOAT
        graph = onnx.helper.make_graph(
            [
                onnx.helper.make_node("Conv", ["image", "w", "b"], ["sums"], pads=[1, 1, 1, 1]),
                onnx.helper.make_node("Relu", ["sums"], ["logits"]),
            ],
            "conv_relu",
            [onnx.helper.make_tensor_value_info("image", float32, [batch, 3, SIDE, SIDE])],
            [onnx.helper.make_tensor_value_info("logits", float32, [batch, 2, SIDE, SIDE])],
            [onnx.numpy_helper.from_array(self.weight, "w"), onnx.numpy_helper.from_array(self.bias, "b")],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, path)
        return path
