"""Sections about engines: export, precision, what is fused, plans, measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from edpct.recipe.section import Section

Target = Literal["tensorrt", "jetson-orin", "rtx"]
ArgmaxAt = Literal["off", "full", "half", "head"]
Calibration = Literal["minmax", "percentile", "mse", "entropy"]
LOW_MEMORY_WORKSPACE = 512  # MiB


class ExportSettings(Section):
    """torch to ONNX.

    Attributes:
        size: input height and width in pixels; the checkpoint's own where it is not given.
        opset: ONNX opset, 18 or later (the exporter cannot lower Pad to 17).
        simplify: run onnxsim, in a process of its own.
        tolerance: largest |ONNX - torch| of the logits, relative to their range.
        open_batch: leave the batch axis open, so that ``edpct bench --batch`` can sweep it.
        open_size: leave height and width open, for images of any multiple of 32; plans are built at ``size``.
    """

    size: tuple[int, int] | None = None
    opset: int = Field(18, ge=18, le=23)
    simplify: bool = True
    tolerance: float = Field(1e-3, gt=0)
    open_batch: bool = False
    open_size: bool = False


class QuantiseSettings(Section):
    """FP16 and INT8.

    Attributes:
        calibration: how far activations reach: ``minmax`` (the mean of the images' largest), ``percentile`` (99.99 %),
            ``mse`` (least squared error) or ``entropy`` (least divergence).
        calibration_images: windows of training images shown to it, chosen so that all classes are seen.
        max_miou_drop: points of mIoU that INT8 may lose; beyond it, what costs most stays in FP32.
        guard_images: windows of training images that this is measured on; 0: not measured, all in INT8.
    """

    calibration: Calibration = "minmax"
    calibration_images: int = Field(64, ge=1)
    max_miou_drop: float = Field(0.5, gt=0, le=100)
    guard_images: int = Field(32, ge=0)


class FuseSettings(Section):
    """What of the host's work goes into the graph, beside the plain ones.

    Attributes:
        preprocess: take decoded images, uint8 (B, H, W, 3), and normalise them in the graph.
        argmax: give classes, uint8 (B, H, W): the argmax of logits at ``full`` size; at ``half`` of it, or at the
            ``head``'s own, brought to full size by the nearest (faster, coarser contours); ``off``: give logits.
    """

    preprocess: bool = True
    argmax: ArgmaxAt = "full"

    @property
    def anything(self) -> bool:
        """Whether anything is to be fused."""
        return self.preprocess or self.argmax != "off"


class BuildOptions(Section):
    """How a TensorRT plan is built; a target refuses what it does not have.

    Attributes:
        batch: least, best and most images of a graph whose batch is open.
        workspace_mb: most GPU memory in MiB that a layer may work in; TensorRT's own limit where it is not given.
        level: 0 (fast build) to 5 (fast engine); TensorRT's own is 3.
        timing_cache: file of timings, made where it is missing, that makes the next build of the kind quicker.
        version_compatible: the plan loads on later versions of TensorRT too, and is somewhat slower.
        hardware_compatible: it loads on other GPUs too: ``ampere+``: on Ampere and later; ``same-capability``: on those
            of one compute capability.
        dla: run on this DLA core what it can run, and the rest on the GPU.
        low_memory: one thread, one stream, a small workspace: for a Jetson with 8 GB.
    """

    batch: tuple[int, int, int] = (1, 1, 16)
    workspace_mb: int | None = Field(None, ge=1)
    level: int | None = Field(None, ge=0, le=5)
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: Literal["off", "ampere+", "same-capability"] = "off"
    dla: int | None = Field(None, ge=0)
    low_memory: bool = False

    @property
    def workspace(self) -> int:
        """The limit in MiB, that of ``low_memory`` included; 0: TensorRT's own."""
        return self.workspace_mb or (LOW_MEMORY_WORKSPACE if self.low_memory else 0)

    @field_validator("batch")
    @classmethod
    def _batch_rises(cls, batch: tuple[int, int, int]) -> tuple[int, int, int]:
        if not 1 <= batch[0] <= batch[1] <= batch[2]:
            raise ValueError("give the least, the best and the most images, in this order")
        return batch


class BuildSettings(BuildOptions):
    """TensorRT plans.

    Attributes:
        target: ``auto`` takes TensorRT where there is a GPU, else TensorRT for RTX, else builds nothing and says so.
    """

    target: Literal["auto", "tensorrt", "jetson-orin", "rtx", "none"] = "auto"


class BenchSettings(Section):
    """Measuring.

    Attributes:
        runtimes: what ``edpct compress`` measures on.
        seconds: least time spent timing each engine in each scope, over all its turns.
        runs: least number of inferences timed in each scope, over all turns.
        rounds: how often the engines take turns.
        warm_up: seconds that an engine may take to reach a steady rate.
        threads: CPU threads per engine; 0: all cores.
        batch: images an inference; several give a sweep.
        streams: 1: latency only; more: also the throughput with that many requests in flight.
        cuda_graph: launch TensorRT engines as one CUDA graph; ``both`` measures each way.
    """

    runtimes: tuple[Literal["openvino", "onnxruntime"], ...] = Field(("openvino", "onnxruntime"), min_length=1)
    seconds: float = Field(3.0, gt=0)
    runs: int = Field(24, ge=1)
    rounds: int = Field(6, ge=1)
    warm_up: float = Field(10.0, gt=0)
    threads: int = Field(0, ge=0)
    batch: tuple[Annotated[int, Field(ge=1)], ...] = Field((1,), min_length=1)
    streams: int = Field(1, ge=1)
    cuda_graph: Literal["on", "off", "both"] = "on"
