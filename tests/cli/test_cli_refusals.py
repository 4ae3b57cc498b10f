"""Bad input, each kind through the real command line: one sentence on stderr, exit code 2, never a traceback.

Most of them need torch, whose import takes seconds: one process imports it and forks a child for every command, so
that exit codes and streams are those of a process.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SERVER = """
import json, os, sys
import edpct.run.compress, edpct.training.teach, edpct.cli.bench
from edpct.cli.main import main
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(os.path.join(job["cwd"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
        os.chdir(job["cwd"])
        sys.argv = ["edpct", *job["arguments"]]
        code = 70
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 1
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Edpct = Callable[..., Answer]


@pytest.fixture(scope="module")
def server(cli_environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=cli_environment
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def edpct(server: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory) -> Edpct:
    assert server.stdin is not None and server.stdout is not None

    def run(*arguments: object) -> Answer:
        here = tmp_path_factory.mktemp("cwd")
        job = {"arguments": [str(a) for a in arguments], "cwd": str(here)}
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        answer = Answer(code, (here / "out").read_text(), (here / "err").read_text())
        assert "Traceback" not in answer.out + answer.err, answer.err
        return answer

    return run


def refused(answer: Answer, what: str) -> None:
    """Exit 2, and the last thing said is one sentence with this text in it, and what to do on a line of its own."""
    assert answer.code == 2, answer
    assert "bug in edpct" not in answer.err
    at = answer.err.rindex("edpct: ")
    said = answer.err[at:].removeprefix("edpct: ").splitlines()
    assert what in said[0], answer.err
    assert len(said) <= 2
    assert all(line.startswith("       ") for line in said[1:])


# ---- --teacher


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.system, (f"touch '{self.marker}'",)


def write_missing(path: Path) -> None:
    pass


def write_empty(path: Path) -> None:
    path.touch()


def write_text(path: Path) -> None:
    path.write_text("these are not weights\n" * 50)


def write_directory(path: Path) -> None:
    path.mkdir()


def write_foreign(path: Path) -> None:
    import torch

    torch.save({"conv.weight": torch.zeros(3, 3), "conv.bias": torch.zeros(3)}, path)


def write_tensor(path: Path) -> None:
    import torch

    torch.save(torch.zeros(3), path)


def write_bare_trap(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Trap(path.with_name("marker"))}))


def write_old_pickle(path: Path) -> None:
    """Protocol 0 is text, and code all the same."""
    path.write_bytes(pickle.dumps(Trap(path.with_name("marker")), protocol=0))


def write_zipped_trap(path: Path) -> None:
    import torch

    torch.save({"state_dict": Trap(path.with_name("marker"))}, path)


def write_other_zip(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "no weights")


TEACHERS = {
    "missing": (write_missing, "There is no checkpoint "),
    "empty": (write_empty, " is empty."),
    "text": (write_text, " is neither a torch file nor safetensors."),
    "directory": (write_directory, " is a directory, not a checkpoint."),
    "foreign": (write_foreign, " holds weights but does not say of which network"),
    "tensor": (write_tensor, " holds no state_dict."),
    "bare-pickle": (write_bare_trap, " is a bare pickle, which could run code when loaded"),
    "old-pickle": (write_old_pickle, " is neither a torch file nor safetensors."),
    "zipped-pickle": (write_zipped_trap, " holds objects other than tensors"),
    "other-zip": (write_other_zip, " is damaged or cut short."),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_bad_teacher(edpct: Edpct, tmp_path: Path, kind: str) -> None:
    write, what = TEACHERS[kind]
    path = tmp_path / "teacher.pt"
    write(path)
    answer = edpct("compress", "--teacher", path, "--out", tmp_path / "run")
    refused(answer, what)
    assert str(path) in answer.err
    assert not (tmp_path / "marker").exists(), "code from a checkpoint was run"
    assert not (tmp_path / "run").exists()


def test_the_traps_would_have_worked(tmp_path: Path) -> None:
    """The marker of the tests above is made by whoever unpickles carelessly."""
    for write in (write_bare_trap, write_old_pickle):
        write(tmp_path / "teacher.pt")
        pickle.loads((tmp_path / "teacher.pt").read_bytes())
        (tmp_path / "marker").unlink()


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_truncated_teacher(edpct: Edpct, compressed_run: Path, tmp_path: Path, share: float, suffix: str) -> None:
    whole = compressed_run.parent / "teacher.pt" if suffix == ".pt" else compressed_run / "student.safetensors"
    content = whole.read_bytes()
    path = tmp_path / f"teacher{suffix}"
    path.write_bytes(content[: int(share * len(content))])
    refused(edpct("compress", "--teacher", path, "--out", tmp_path / "run"), " is damaged or cut short.")


def test_a_teacher_with_nan(edpct: Edpct, tiny_teacher: Path, tmp_path: Path) -> None:
    import torch

    content = torch.load(tiny_teacher, weights_only=True)
    content["state_dict"]["classifier.bias"][2] = float("nan")
    torch.save(content, tmp_path / "teacher.pt")
    refused(edpct("compress", "--teacher", tmp_path / "teacher.pt"), "the weights 'classifier.bias' hold NaN")


# ---- --data


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the scenes to be spoiled."""
    return Path(shutil.copytree(scenes, tmp_path / "data"))


def first(folder: Path) -> Path:
    return sorted(folder.iterdir())[0]


def no_folder(data: Path, split: str) -> None:
    shutil.rmtree(data)


def no_images(data: Path, split: str) -> None:
    for path in (data / split / "images").iterdir():
        path.unlink()


def other_size(data: Path, split: str) -> None:
    mask = first(data / split / "masks")
    with Image.open(mask) as picture:
        picture.resize((64, 64), Image.Resampling.NEAREST).save(mask)


def label_out_of_range(data: Path, split: str) -> None:
    mask = first(data / split / "masks")
    labels = np.array(Image.open(mask))
    labels[3, 5] = 42
    Image.fromarray(labels).save(mask)


def unreadable(data: Path, split: str) -> None:
    image = first(data / split / "images")
    image.write_bytes(image.read_bytes()[:300])


def no_mask(data: Path, split: str) -> None:
    first(data / split / "masks").unlink()


def bad_table(data: Path, split: str) -> None:
    (data / "classes.json").write_text('{"classes": [{"name": "road"}]}')


DATA = {
    "no-folder": (no_folder, "There is no data folder "),
    "no-images": (no_images, " images in the layout 'folder'."),
    "other-size": (other_size, " is 64x64 pixels but its image is 128x128."),
    "label": (label_out_of_range, " holds the label 42, but there are 7 classes (0 to 6) and ignore index 255."),
    "unreadable": (unreadable, " cannot be read: damaged, cut short, or no image."),
    "no-mask": (no_mask, " has no mask in "),
    "table": (bad_table, " cannot be used: "),
}
SMALL_TRAINING = ("--preset", "tiny", "--steps", 1, "--batch", 1, "--crop", 64, "--size", 128)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--backbone", "resnet_of_nobody"), "timm has no backbone 'resnet_of_nobody'."),
        (("--backbone", "vit_tiny_patch16_224"), "gives no maps at strides 4, 8 and 16"),
        (("--backbone-weights", "hub"), "backbone_weights are given but no backbone"),
        (("--backbone", "resnet18", "--backbone-weights", "missing.pth"), "There is no checkpoint missing.pth."),
        (("--backbone", "resnet18", "--backbone-weights", "package"), "No package ships weights of resnet18."),
    ],
)
def test_backbones_that_cannot_be_used(
    edpct: Edpct, scenes: Path, tmp_path: Path, arguments: tuple[str, ...], what: str
) -> None:
    refused(edpct("train", "--data", scenes, "--out", tmp_path / "out", *SMALL_TRAINING, *arguments), what)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("kind", DATA)
def test_bad_data_for_a_training(edpct: Edpct, data: Path, tmp_path: Path, kind: str, split: str) -> None:
    spoil, what = DATA[kind]
    spoil(data, split)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[train]\nsave_every = 1\n")
    arguments = (*SMALL_TRAINING, "--steps", 2, "--recipe", recipe)
    refused(edpct("train", "--data", data, "--out", tmp_path / "out", *arguments), what)
    assert not (tmp_path / "out" / "teacher.pt").exists()
    assert not (tmp_path / "out" / "resume.pt").exists(), "a step was made before all of the data was looked at"


@pytest.mark.parametrize("kind", DATA)
def test_bad_data_for_a_bench(edpct: Edpct, compressed_run: Path, data: Path, kind: str) -> None:
    spoil, what = DATA[kind]
    spoil(data, "val")
    engine = compressed_run / "student.onnx"
    refused(edpct("bench", "--engine", engine, "--data", data, "--seconds", 0.01, "--runtime", "onnxruntime"), what)


# ---- bench


BENCH = ("--runtime", "onnxruntime", "--threads", 1, "--seconds", 0.01, "--rounds", 1, "--runs", 1)


def with_card(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The graph of ``source`` whose card was changed."""
    import onnx

    model = onnx.load(source)
    (entry,) = [entry for entry in model.metadata_props if entry.key == "edpct"]
    card = json.loads(entry.value)
    change(card)
    entry.value = json.dumps(card)
    onnx.save(model, target)
    return target


def write_cut_onnx(path: Path) -> None:
    path.write_bytes((path.parent / "source.onnx").read_bytes()[:5000])


def write_strangers_onnx(path: Path) -> None:
    import onnx

    model = onnx.load(path.parent / "source.onnx")
    del model.metadata_props[:]
    onnx.save(model, path)


ENGINES = {
    "missing": ("a.onnx", write_missing, "There is no file "),
    "empty": ("a.onnx", write_empty, " is empty."),
    "directory": ("a.onnx", write_directory, " is a directory"),
    "text": ("a.onnx", write_text, "a.onnx is not an ONNX model, or only part of one."),
    "cut": ("a.onnx", write_cut_onnx, "a.onnx is not an ONNX model, or only part of one."),
    "no-card": ("a.onnx", write_strangers_onnx, "a.onnx does not say what it is (no edpct metadata)"),
    "notes": ("notes.txt", write_text, "notes.txt is no engine that edpct knows."),
    "plan-alone": ("a.plan", write_text, "a.plan has no sidecar a.plan.json beside it"),
    "no-checkpoint": ("a.pt", write_foreign, " was not written by edpct."),
    "trap": ("a.pt", write_zipped_trap, " holds objects other than tensors"),
}


@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_that_is_none(edpct: Edpct, compressed_run: Path, tmp_path: Path, kind: str) -> None:
    name, write, what = ENGINES[kind]
    shutil.copy(compressed_run / "student.onnx", tmp_path / "source.onnx")
    write(tmp_path / name)
    refused(edpct("bench", "--engine", tmp_path / name, "--no-accuracy", "--seconds", 0.01), what)
    assert not (tmp_path / "marker").exists(), "code from a checkpoint was run"


def test_data_whose_number_of_classes_is_not_the_engines(edpct: Edpct, compressed_run: Path, data: Path) -> None:
    table = json.loads((data / "classes.json").read_text())
    table["classes"].pop()
    (data / "classes.json").write_text(json.dumps(table))
    answer = edpct("bench", "--engine", compressed_run / "student.onnx", "--data", data, *BENCH)
    refused(answer, f"{data} has the 6 classes land, ")
    assert "student.onnx was made for the 7 classes land, " in answer.err


def test_an_image_smaller_than_the_engines_input(edpct: Edpct, compressed_run: Path, data: Path) -> None:
    image, mask = first(data / "val" / "images"), first(data / "val" / "masks")
    for path in (image, mask):
        with Image.open(path) as picture:
            small = picture.resize((100, 60), Image.Resampling.NEAREST)
        small.save(path)
    answer = edpct("bench", "--engine", compressed_run / "student.onnx", "--data", data, *BENCH)
    refused(answer, f"{image} has 100x60 pixels, fewer than the 128x128 that student.onnx takes.")


def test_a_data_folder_without_any_image(edpct: Edpct, compressed_run: Path, data: Path) -> None:
    for split in ("train", "val"):
        no_images(data, split)
    answer = edpct("bench", "--engine", compressed_run / "student.onnx", "--data", data, *BENCH)
    refused(answer, f"{data} has no images in the layout 'folder'.")


def fewer_classes(card: dict[str, Any]) -> None:
    card["task"]["classes"].pop()


def other_input(card: dict[str, Any]) -> None:
    card["task"]["preprocessing"]["width"] = 256


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (fewer_classes, "a.onnx contradicts itself: its card says that the output is (B, 6, 128, 128), and "),
        (other_input, "a.onnx contradicts itself: its card says that the input is (B, 3, 128, 256), and "),
        (lambda card: card.pop("task"), "a.onnx carries a description that this edpct "),
    ],
    ids=["classes", "size", "no card of ours"],
)
def test_an_engine_that_contradicts_its_card(
    edpct: Edpct, compressed_run: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], what: str
) -> None:
    path = with_card(compressed_run / "student.onnx", tmp_path / "a.onnx", change)
    refused(edpct("bench", "--engine", path, "--no-accuracy", *BENCH), what)


def test_a_sidecar_that_contradicts_its_plan(edpct: Edpct, compressed_run: Path, tmp_path: Path) -> None:
    """The FP16 plan beside the sidecar of the INT8 one, and a sidecar that is none."""
    pytest.importorskip("tensorrt_rtx")
    plan, sidecar = tmp_path / "a.plan", tmp_path / "a.plan.json"
    shutil.copy(compressed_run / "student-fp16.plan", plan)
    shutil.copy(compressed_run / "student-int8.plan.json", sidecar)
    refused(edpct("bench", "--engine", plan), "a.plan is not the file that its sidecar describes")
    sidecar.write_text("{}")
    refused(edpct("bench", "--engine", plan), "a.plan.json, the sidecar of a.plan, cannot be read.")


def test_a_plan_without_a_sidecar_is_opened_only_where_it_is_trusted(
    edpct: Edpct, compressed_run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    plan = Path(shutil.copy(compressed_run / "student-fp16.plan", tmp_path / "a.plan"))
    done = edpct("bench", "--engine", plan)
    refused(done, "a.plan has no sidecar a.plan.json beside it")
    assert done.err.rstrip().endswith("A plan is code; if you trust this one: --trust.")
    refused(edpct("bench", "--engine", plan, "--trust"), "a.plan needs an NVIDIA GPU and this machine has none")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--runtime", "tflite"), "There is no runtime 'tflite'."),
        (("--runtime", "torch"), "PyTorch eager opens .pt and .safetensors files, and student.onnx is none."),
        (("--runtime", "onnxruntime", "--device", "npu"), "ONNX Runtime has no device 'npu'."),
        (("--runtime", "onnxruntime", "--batch", 2), "student.onnx takes batches of 1, and 2 was asked for."),
        (("--batch", 0), "setting 'bench.batch.0': "),
        (("--streams", 0), "setting 'bench.streams': "),
        (("--seconds", 0), "setting 'bench.seconds': "),
        (("--seconds", "nan"), "setting 'bench.seconds': "),
        (("--rounds", 0), "setting 'bench.rounds': "),
        (("--threads", -1), "setting 'bench.threads': "),
        (("--cuda-graph", "maybe"), "setting 'bench.cuda_graph': "),
        (("--layout", "cityscapes"), "The layout 'cityscapes' is unknown."),
        (("--reference", "teacher"), "There is no engine 'teacher' to compare with."),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_bench_with_a_bad_setting(
    edpct: Edpct, compressed_run: Path, scenes: Path, arguments: tuple[object, ...], what: str
) -> None:
    refused(edpct("bench", "--engine", compressed_run / "student.onnx", "--data", scenes, *arguments), what)


# ---- compress


@pytest.mark.parametrize("kind", ["no-folder", "no-images", "no-mask", "table"])
def test_bad_data_for_a_compression(edpct: Edpct, tiny_teacher: Path, data: Path, tmp_path: Path, kind: str) -> None:
    spoil, what = DATA[kind]
    spoil(data, "train")
    out = tmp_path / "run"
    refused(edpct("compress", "--teacher", tiny_teacher, "--data", data, "--out", out), what)
    assert not out.exists(), "refused before anything is begun"


@pytest.mark.parametrize("kind", ["other-size", "label", "unreadable"])
def test_bad_pixels_for_a_compression(
    edpct: Edpct, compressed_run: Path, data: Path, tmp_path: Path, kind: str
) -> None:
    spoil, what = DATA[kind]
    spoil(data, "train")
    teacher, recipe = compressed_run.parent / "teacher.pt", compressed_run.parent / "recipe.toml"
    answer = edpct(
        "compress", "--teacher", teacher, "--recipe", recipe, "--data", data, "--out", tmp_path / "run", "--steps", 9
    )
    refused(answer, what)
    assert "Distilling" not in answer.err


def test_images_that_the_bench_would_refuse(edpct: Edpct, tiny_teacher: Path, data: Path, tmp_path: Path) -> None:
    """Before the work, not after it."""
    for folder in ("images", "masks"):
        path = min((data / "val" / folder).iterdir())
        with Image.open(path) as picture:
            cut = picture.crop((0, 0, 128, 100))
        cut.save(path)
    out = tmp_path / "run"
    answer = edpct("compress", "--teacher", tiny_teacher, "--data", data, "--out", out)
    refused(answer, "has 128x100 pixels, fewer than the 128x128 that teacher.pt takes.")
    assert not out.exists()


def test_data_of_other_classes(edpct: Edpct, tiny_teacher: Path, data: Path, tmp_path: Path) -> None:
    table = json.loads((data / "classes.json").read_text())
    table["classes"][0]["name"] = "ground"
    (data / "classes.json").write_text(json.dumps(table))
    answer = edpct("compress", "--teacher", tiny_teacher, "--data", data, "--out", tmp_path / "run")
    refused(answer, "has the 7 classes ground, ")


def test_data_that_moved_away(edpct: Edpct, tiny_teacher: Path, tmp_path: Path) -> None:
    import torch

    content = torch.load(tiny_teacher, weights_only=True)
    card = json.loads(content["edpct"])
    card["data"]["directory"] = str(tmp_path / "gone")
    torch.save({**content, "edpct": json.dumps(card)}, tmp_path / "teacher.pt")
    answer = edpct("compress", "--teacher", tmp_path / "teacher.pt", "--out", tmp_path / "run")
    refused(answer, f" no longer lies in {tmp_path / 'gone'}.")
    assert "--data DIR" in answer.err


# ---- settings


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--target-macs", 1.5), "setting 'prune.macs': "),
        (("--steps", 0), "setting 'distil.steps': "),
        (("--lr", "nan"), "setting 'distil.lr': "),
        (("--target", "tpu"), "setting 'build.target': "),
        (("--threads", -1), "setting 'bench.threads': "),
        (("--size", 100), "An input of 100x100 pixels does not fit the network."),
        (("--recipe", "nowhere.toml"), "There is no recipe nowhere.toml."),
        (("--layout", "cityscapes"), "The layout 'cityscapes' is unknown."),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_bad_setting(
    edpct: Edpct, tiny_teacher: Path, scenes: Path, tmp_path: Path, arguments: tuple[object, ...], what: str
) -> None:
    answer = edpct("compress", "--teacher", tiny_teacher, "--data", scenes, "--out", tmp_path / "run", *arguments)
    refused(answer, what)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[distil]\nstep = 5\n", "setting 'distil.step': "),
        ("[prunes]\nmacs = 0.5\n", "setting 'prunes': "),
        ("[prune]\nmacs = 'half'\n", "setting 'prune.macs': "),
        ("distil = 3\n", "distil"),
        ("[distil\n", " cannot be read as TOML: "),
        ("\x00\xff", " cannot be read as TOML: "),
    ],
    ids=["key", "section", "type", "section-is-a-number", "no-toml", "bytes"],
)
def test_a_bad_recipe(edpct: Edpct, tiny_teacher: Path, tmp_path: Path, text: str, what: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_bytes(text.encode("latin-1"))
    answer = edpct("compress", "--teacher", tiny_teacher, "--recipe", recipe, "--steps", 2, "--out", tmp_path / "run")
    refused(answer, what)
    assert str(recipe) in answer.err


def test_a_tap_that_the_network_does_not_have(edpct: Edpct, tiny_teacher: Path, scenes: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text('[distil]\ntaps = ["stem"]\n')
    answer = edpct("compress", "--teacher", tiny_teacher, "--data", scenes, "--recipe", recipe, "--out", out)
    refused(answer, "setting 'distil.taps': the teacher has no tap 'stem'.")
    assert "Taps of both networks: cnn, transformer, fused." in answer.err
    assert not out.exists(), "refused before anything is begun"


# ---- --out


def test_a_file_where_the_run_folder_should_be(edpct: Edpct, tiny_teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.write_text("a file")
    refused(edpct("compress", "--teacher", tiny_teacher, "--out", out), f"The run folder {out} cannot be made: ")
    assert out.read_text() == "a file"


def test_a_file_where_the_teacher_should_go(edpct: Edpct, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("a file")
    for place in (out, out / "deeper"):
        refused(edpct("train", "--data", scenes, "--out", place, *SMALL_TRAINING), str(out))
    assert out.read_text() == "a file"


def test_a_train_split_that_is_ignored_throughout(edpct: Edpct, scenes: Path, tmp_path: Path) -> None:
    """By training and by the check before it; one labelled pixel is something to learn from."""
    data = Path(shutil.copytree(scenes, tmp_path / "data"))
    masks = sorted((data / "train/masks").iterdir())
    ignored = np.full((128, 128), 255, np.uint8)
    for mask in masks:
        Image.fromarray(ignored).save(mask)
    train = ("train", "--data", data, "--out", tmp_path / "out", *SMALL_TRAINING)
    refused(edpct(*train), f"There is nothing to learn from in {data}: every pixel of the train masks is ignored.")
    assert not (tmp_path / "out/teacher.pt").exists()
    checked = edpct("data", "check", data)
    refused(checked, f"{data} has 1 problem, see above.")
    assert "error: Every pixel of the train masks is ignored: there is nothing to learn from." in checked.out
    ignored[5, 7] = 0
    Image.fromarray(ignored).save(masks[-1])
    assert edpct(*train).code == 0


def test_a_val_split_that_is_ignored_throughout(edpct: Edpct, scenes: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    """Said before training begins and after a bench has looked, not as an mIoU of 0."""
    data = Path(shutil.copytree(scenes, tmp_path / "data"))
    for mask in (data / "val/masks").iterdir():
        Image.fromarray(np.full((128, 128), 255, np.uint8)).save(mask)
    trained = edpct("train", "--data", data, "--out", tmp_path / "out", *SMALL_TRAINING)
    refused(trained, f"There is nothing to score on in {data}: every pixel of the val masks is ignored.")
    assert not (tmp_path / "out/teacher.pt").exists()
    measured = edpct("bench", "--engine", tiny_teacher, "--data", data, "--seconds", 0.1, "--rounds", 1)
    refused(measured, f"There is nothing to score on in {data}: every pixel of the val masks is ignored.")


def test_a_teacher_of_other_settings_is_not_overwritten(edpct: Edpct, scenes: Path, tmp_path: Path) -> None:
    made = edpct("train", "--data", scenes, "--out", tmp_path / "out", *SMALL_TRAINING)
    assert made.code == 0, made.err
    checkpoint = tmp_path / "out" / "teacher.pt"
    before = checkpoint.read_bytes()
    again = edpct("train", "--data", scenes, "--out", tmp_path / "out", *SMALL_TRAINING)
    assert again.code == 0 and "is finished with these settings; nothing to do." in again.err
    other = edpct("train", "--data", scenes, "--out", tmp_path / "out", *SMALL_TRAINING, "--seed", 5)
    refused(other, " is a teacher of other settings.")
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "name", "what"),
    [
        ("--json", "nowhere/results.json", "There is no folder "),
        ("--report", "nowhere/page.html", "There is no folder "),
        ("--report", "file/page.html", "There is no folder "),
        ("--report", "", " is a folder."),
        ("--json", "", " is a folder."),
        ("--report", "page.pdf", "A report is .html or .md, and page.pdf is neither."),
        ("--report", "page", "A report is .html or .md, and page is neither."),
    ],
)
def test_results_that_cannot_be_written(
    edpct: Edpct, compressed_run: Path, tmp_path: Path, option: str, name: str, what: str
) -> None:
    """Said before anything is measured: the engine named here is not even there."""
    (tmp_path / "file").write_text("a file")
    answer = edpct("bench", "--engine", compressed_run / "nowhere.onnx", option, tmp_path / name)
    refused(answer, what)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["training.json", ".teacher.pt.partial", ".resume.pt.partial"])
def test_a_full_disk(edpct: Edpct, scenes: Path, tmp_path: Path, name: str) -> None:
    """``/dev/full`` has no room for anything; a file that is written through it is on a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    out = tmp_path / "out"
    out.mkdir()
    (out / name).symlink_to("/dev/full")
    answer = edpct("train", "--data", scenes, "--out", out, *SMALL_TRAINING)
    refused(answer, "")
    assert "Free some space" in answer.err
    assert not (out / "teacher.pt").exists()
    (out / name).unlink(missing_ok=True)
    again = edpct("train", "--data", scenes, "--out", out, *SMALL_TRAINING)  # once there is room
    assert again.code == 0, again.err
    assert (out / "teacher.pt").exists()


# ---- build


def test_a_build_of_nothing_that_can_be_built(edpct: Edpct, compressed_run: Path, tmp_path: Path) -> None:
    engine = compressed_run / "student.onnx"
    refused(edpct("build", "--onnx", tmp_path / "nowhere.onnx", "--target", "rtx"), "There is no file ")
    refused(edpct("build", "--onnx", engine, "--target", "tpu"), "There is no target 'tpu'.")
    (tmp_path / "cut.onnx").write_bytes(engine.read_bytes()[:5000])
    refused(edpct("build", "--onnx", tmp_path / "cut.onnx", "--target", "rtx"), "cut.onnx is not an ONNX model")
