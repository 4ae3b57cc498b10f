"""The peers of :mod:`peers`: networks of segmentation-models-pytorch, their weights, and their FP32 and INT8 files."""

from __future__ import annotations

import hashlib
import importlib
import json
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edpct import __version__
from edpct.bench.report.schema import FailureReport
from edpct.bench.report.wording import join
from edpct.card import Card
from edpct.errors import CheckpointError, EdpctError, EngineError, ExportError, MissingPackageError
from edpct.export.fuse import fuse
from edpct.export.int8 import quantise_int8
from edpct.export.onnx_export import export_onnx
from edpct.export.parity import check_parity
from edpct.models.architecture import count_macs, count_parameters
from edpct.progress import Progress
from edpct.recipe import ArgmaxAt, ExportSettings, FuseSettings
from edpct.runtimes.artefact import card_of, sha256_of
from edpct.task import Task

Images = Sequence[NDArray[np.uint8]]
PACKAGE = "segmentation_models_pytorch"
TOOLS = ("segmentation-models-pytorch", "timm", "torch", "onnx", "onnxscript", "onnxsim", "nncf")
SEED = 0
SETTLING, PARITY_IMAGES = 4, 2  # images


@dataclass(frozen=True)
class Peer:
    """A network of segmentation-models-pytorch: its class, and the name of its encoder there."""

    name: str
    kind: str
    encoder: str


PEERS = {
    peer.name: peer
    for peer in (
        Peer("Unet-ResNet18", "Unet", "resnet18"),
        Peer("FPN-ResNet18", "FPN", "resnet18"),
        Peer("FPN-MobileNetV2", "FPN", "mobilenet_v2"),
        Peer("DeepLabV3Plus-ResNet18", "DeepLabV3Plus", "resnet18"),
        Peer("SegFormer-B0", "Segformer", "mit_b0"),
        Peer("UPerNet-ResNet18", "UPerNet", "resnet18"),
    )
}


@dataclass(frozen=True)
class Engine:
    """One file that is measured; ``trained``: its weights were trained, so that its mIoU means something."""

    name: str
    path: Path
    trained: bool


def chosen(names: Sequence[str]) -> list[Peer]:
    """The peers of these names; all of them where none is named."""
    if unknown := [name for name in names if name not in PEERS]:
        raise EngineError(f"There is no peer '{unknown[0]}'.", f"Choose from: {', '.join(PEERS)}.")
    return [peer for name, peer in PEERS.items() if not names or name in names]


def prepare(
    peer: Peer, task: Task, weights: Path | None, images: Images, work: Path, progress: Progress,
    argmax: ArgmaxAt = "off",
) -> tuple[list[Engine], list[FailureReport]]:  # fmt: skip
    """The FP32, the INT8 and the fused INT8 file of a peer, from an earlier run where nothing that made them changed.

    Args:
        argmax: where the fused file takes it; ``off``: no fused file is made. Of a network that does not end in an
            upsampling it is taken at full size.

    Raises:
        CheckpointError, MissingPackageError: the weights do not fit, the package is not there. What only this peer
            cannot do is among the failures instead.
    """
    folder = work / f"{peer.name.lower()}-{key_of(peer, task, weights, images)}"
    folder.mkdir(exist_ok=True)
    fp32, int8 = folder / f"{peer.name.lower()}.onnx", folder / f"{peer.name.lower()}-int8.onnx"
    made: list[Engine] = []
    model = build(peer, task.num_classes)
    if weights is not None:
        load_weights(model, weights, peer.name)
    else:
        settle_statistics(model, task, images[:SETTLING])
    name = peer.name
    try:
        if not fp32.exists():
            progress.say(f"  exporting {fp32.name}")
            partial = fp32.with_name(f"unchecked-{fp32.name}")
            export_onnx(model, card_for(peer, model, task), partial, ExportSettings(), progress)
            tolerance = ExportSettings().tolerance
            check_parity(model, partial, task, images[:PARITY_IMAGES], tolerance)
            partial.replace(fp32)
        made.append(Engine(name, fp32, weights is not None))
        name = f"{peer.name} INT8"
        if not int8.exists():
            progress.say(f"  quantising {int8.name}, {len(images)} calibration images")
            quantise_int8(fp32, int8, card_of(fp32), images)
        made.append(Engine(name, int8, weights is not None))
        if argmax != "off":
            name = f"{peer.name} INT8, fused"
            made.append(Engine(name, fused(int8, argmax), weights is not None))
    except Exception as error:  # whatever the exporter or the quantiser raises is this peer's result
        reason = str(error) if isinstance(error, EdpctError) else f"{type(error).__name__}: {error}"
        reason = " ".join(reason.split())[:400]
        progress.say(f"  {name} failed: {reason}")
        return made, [FailureReport(name=name, runtime="all", reason=reason)]
    return made, []


def fused(int8: Path, argmax: ArgmaxAt) -> Path:
    """The file with normalisation and argmax inside, made unless it is there."""
    path = int8.with_name(f"{int8.stem}-fused-{argmax}.onnx")
    if not path.exists():
        try:
            fuse(int8, path, card_of(int8), FuseSettings(argmax=argmax))
        except ExportError:
            fuse(int8, path, card_of(int8), FuseSettings(argmax="full"))
    return path


def key_of(peer: Peer, task: Task, weights: Path | None, images: Images) -> str:
    """What the files of a peer are made of and with, as ten hexadecimal digits."""
    pixels = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
    tools = {"edpct": __version__} | {name: metadata.version(name) for name in TOOLS if _installed(name)}
    made_of = [peer.kind, peer.encoder, task.model_dump(mode="json"), sha256_of(weights) if weights else SEED, pixels]
    return hashlib.sha256(json.dumps([*made_of, tools, ExportSettings().model_dump()]).encode()).hexdigest()[:10]


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def build(peer: Peer, classes: int) -> nn.Module:
    """The network with fresh weights, the same ones each time.

    Raises:
        MissingPackageError: segmentation-models-pytorch is not installed.
    """
    try:
        package: Any = importlib.import_module(PACKAGE)
    except ModuleNotFoundError as error:
        raise MissingPackageError(PACKAGE, "building the peers", "peers") from error
    torch.manual_seed(SEED)
    model: nn.Module = getattr(package, peer.kind)(encoder_name=peer.encoder, encoder_weights=None, classes=classes)
    return model.eval()


def settle_statistics(model: nn.Module, task: Task, images: Images) -> None:
    """Give batch normalisation the statistics of real images.

    At its initial ones, activations may grow or vanish from layer to layer, and numbers near zero (denormal) make a
    processor many times slower: the peer would look worse than it is.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = None  # a plain mean over what it sees
    model.train()
    with torch.no_grad():
        model(torch.from_numpy(task.preprocessing.apply(np.stack(images))))
    model.eval()
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum


def card_for(peer: Peer, model: nn.Module, task: Task) -> Card:
    """The card of a peer, as the student has one."""
    size = task.preprocessing
    macs = count_macs(model, size.height, size.width)
    return Card(network=peer.name, task=task, parameters=count_parameters(model), macs=macs)


def load_weights(model: nn.Module, path: Path, name: str) -> None:
    """Put a state_dict into a network, every tensor in its place.

    Raises:
        CheckpointError: unreadable, or not the tensors of this network.
    """
    tensors = _read_tensors(path)
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    wrong = [key for key in expected.keys() & tensors.keys() if expected[key].shape != tensors[key].shape]
    reasons = [f"{len(missing)} tensors are missing (first: {missing[0]})"] if missing else []
    reasons += [f"{len(extra)} have no place (first: {extra[0]})"] if extra else []
    if wrong:
        key = min(wrong)
        shapes = f"{tuple(tensors[key].shape)} instead of {tuple(expected[key].shape)}"
        reasons.append(f"{len(wrong)} have another shape (first: {key}, {shapes})")
    if reasons:
        raise CheckpointError(
            f"{path} does not hold the weights of {name} with these classes: {join(reasons)}.",
            f"Train segmentation_models_pytorch's {name} on the classes of --data and save its state_dict().",
        )
    model.load_state_dict(tensors, strict=True)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        if not zipfile.is_zipfile(path):
            raise ValueError("no file of torch.save")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as plain tensors.", "Save state_dict() as .safetensors or with torch.save."
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no state_dict.", "Save state_dict() alone.")
    return content
