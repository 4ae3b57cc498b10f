"""A torch network whose weights and activations are rounded as INT8 rounds them, for quantisation-aware training.

NNCF places its quantisers as it places Q/DQ nodes in an ONNX graph. Their scales stay where calibration puts them: what
is trained are the network's own weights, which are then exported and quantised like any other network's, by the same
code and with the same guard, into a graph that TensorRT takes. Statistics of batch normalisation are held, as is usual
(Krishnamoorthi, arXiv 1806.08342, section 3.2).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edpct.errors import QuantisationError
from edpct.export.int8 import quiet_nncf

LOGITS = "logits"


class FakeQuantised(nn.Module):
    """A copy of a network with quantisers in it; it shows the same inner maps, so it can be distilled.

    Args:
        network: with ``TAPS``, ``features`` and ``classify``, as :class:`edpct.models.dpctnet.DPCTNet`.
        images: to calibrate on, (1, 3, H, W), float32, normalised.

    Attributes:
        TAPS: as the network has them.

    Raises:
        QuantisationError: no images, or NNCF cannot trace or quantise the network.
    """

    def __init__(self, network: nn.Module, images: Sequence[Tensor]) -> None:
        super().__init__()
        if not images:
            raise QuantisationError("Calibration needs at least one image.", "Give training images with --data.")
        self.TAPS: tuple[str, ...] = tuple(network.TAPS)  # type: ignore[arg-type]  # nn.Module types all as Tensor
        with quiet_nncf() as nncf:
            try:
                self.quantised: nn.Module = nncf.quantize(
                    _Shown(copy.deepcopy(network).eval()),
                    nncf.Dataset(list(images)),
                    preset=nncf.QuantizationPreset.PERFORMANCE,
                    target_device=nncf.TargetDevice.ANY,
                    model_type=nncf.ModelType.TRANSFORMER,
                    subset_size=len(images),
                    # Both would change weights in ways that only the quantisers undo; the weights are wanted alone.
                    advanced_parameters=nncf.AdvancedQuantizationParameters(
                        disable_bias_correction=True,
                        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
                    ),
                )
            except (RuntimeError, ValueError, nncf.ValidationError, nncf.UnsupportedModelError) as error:
                reason = str(error).splitlines()[0]
                raise QuantisationError(f"NNCF cannot put quantisers into this network: {reason}") from error
        for place in [module for module in self.quantised.modules() if isinstance(module, nn.ModuleDict)]:
            for key, quantiser in place.items():
                if hasattr(quantiser, "get_parameters_for_torch_fq"):
                    place[key] = _Rounding(quantiser)

    @property
    def trained(self) -> nn.Module:
        """The network with the weights that training gave it, without quantisers; of the class that went in."""
        network: nn.Module = self.quantised.network  # type: ignore[assignment]
        return network

    def train(self, mode: bool = True) -> FakeQuantised:
        """As for any module, but statistics of batch normalisation are never updated."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        return self.classify(self.features(image))

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """The maps of :attr:`TAPS` and the logits (B, num_classes, H, W) as "logits"."""
        logits, *maps = self.quantised(image)
        return {**dict(zip(self.TAPS, maps, strict=True)), LOGITS: logits}

    def classify(self, features: dict[str, Tensor]) -> Tensor:
        """Logits (B, num_classes, H, W) of what :meth:`features` returned."""
        return features[LOGITS]


class _Rounding(nn.Module):
    """One quantiser of NNCF's by torch's own operators; gradients pass inside its range (straight-through).

    NNCF's module compiles a C++ extension on first use, which takes minutes or fails. What it rounds to uint8 is
    rounded to 127 steps here, as :func:`edpct.export.qdq.make_signed` leaves it.
    """

    def __init__(self, quantiser: Any) -> None:
        super().__init__()
        self.low, self.high, scale, zero = quantiser.get_parameters_for_torch_fq()
        if self.low == 0:
            scale, self.high = scale * (self.high / 127), 127
        self.axis = int(np.argmax(quantiser.scale_shape)) if quantiser.per_channel else None
        self.register_buffer("scale", scale if quantiser.per_channel else scale.squeeze())
        self.register_buffer("zero", zero if quantiser.per_channel else zero.squeeze())

    def forward(self, values: Tensor) -> Tensor:
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero, self.low, self.high)
        return torch.fake_quantize_per_channel_affine(values, self.scale, self.zero, self.axis, self.low, self.high)


class _Shown(nn.Module):
    """Everything that distillation looks at in one forward pass, which is what NNCF puts quantisers into."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.network.features(image)
        return (self.network.classify(features), *(features[tap] for tap in self.network.TAPS))  # type: ignore[attr-defined]
