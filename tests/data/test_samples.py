"""Reading images and masks: what is right is read exactly, what is wrong is one sentence that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edpct.data.samples import (
    Dataset,
    Sample,
    check_labels,
    decode_colours,
    list_images,
    pair_up,
    read_image,
    read_mask,
    read_size,
)
from edpct.errors import DataError
from edpct.task import ClassInfo, Task

TASK = Task(classes=tuple(ClassInfo(name=name, colour=(i, i, i)) for i, name in enumerate("abc")))
RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
NOISE = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def _dataset(tmp_path: Path, image: np.ndarray, mask: np.ndarray) -> Dataset:
    """One image and one grey mask."""
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    sample = Sample(tmp_path / "image.png", tmp_path / "mask.png")
    return Dataset(tmp_path, "folder", TASK, (sample,), (), lambda path: np.asarray(read_mask(path)))


def _refusal(call, *arguments: object) -> DataError:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "\n" not in text and caught.value.what.endswith(".") and "Error" not in text
    return caught.value


# ---- what is right


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_an_rgb_image_is_read_pixel_by_pixel(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}")
    read = read_image(tmp_path / f"a{suffix}")
    assert read.dtype == np.uint8 and np.array_equal(read, RGB)


def test_grey_and_transparent_images_are_read_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([RGB, RGB[..., :1]])).save(tmp_path / "alpha.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(RGB[..., :1], 3, axis=2))
    assert np.array_equal(read_image(tmp_path / "alpha.png"), RGB)


def test_a_sample_is_read_with_its_labels(tmp_path: Path) -> None:
    mask = np.zeros((6, 9), np.uint8)
    mask[2, 3], mask[5, 8] = 2, 255
    dataset = _dataset(tmp_path, RGB, mask)
    image, labels = dataset.read(dataset.train[0])
    assert np.array_equal(image, RGB) and np.array_equal(labels, mask)


def test_colours_become_the_labels_of_the_table() -> None:
    rgb = np.array([[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 1]]], np.uint8)
    table = {(0, 0, 1): 4, (0, 1, 0): 0, (1, 0, 0): 255}
    labels = decode_colours(rgb, table, Path("m.png"))
    assert labels.dtype == np.uint8 and labels.tolist() == [[4, 255], [0, 4]]


def test_images_are_listed_by_name_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "c.tiff"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG", "c.tiff"]


def test_images_and_masks_are_paired_by_stem(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "images/b.jpg", "masks/b.png", "masks/a.png", "masks/unused.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    images, masks = tmp_path / "images", tmp_path / "masks"
    assert pair_up(images, masks) == (
        Sample(images / "a.jpg", masks / "a.png"),
        Sample(images / "b.jpg", masks / "b.png"),
    )


def _stored(shown: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera that is held otherwise stores what is to be seen: first row and column as EXIF 2.32 names them."""
    rows_are_columns = shown.swapaxes(0, 1)
    return {
        1: shown,
        2: shown[:, ::-1],  # top, right
        3: shown[::-1, ::-1],  # bottom, right
        4: shown[::-1],  # bottom, left
        5: rows_are_columns,  # left, top
        6: rows_are_columns[::-1],  # right, top
        7: rows_are_columns[::-1, ::-1],  # right, bottom
        8: rows_are_columns[:, ::-1],  # left, bottom
    }[orientation]


def _orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_an_image_is_turned_as_it_is_displayed(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a{suffix}"
    options = {".tif": {"tiffinfo": {274: orientation}}}.get(suffix, {"exif": _orientation(orientation)})
    Image.fromarray(_stored(RGB, orientation)).save(path, lossless=True, **options)
    assert np.array_equal(read_image(path), RGB)
    assert read_size(path) == RGB.shape[:2]


def test_a_mask_drawn_on_the_image_as_displayed_fits(tmp_path: Path) -> None:
    mask = np.random.default_rng(2).integers(0, 3, RGB.shape[:2], np.uint8)
    dataset = _dataset(tmp_path, RGB, mask)
    Image.fromarray(_stored(RGB, 6)).save(tmp_path / "image.png", exif=_orientation(6))
    image, labels = dataset.read(dataset.train[0])
    assert np.array_equal(image, RGB) and np.array_equal(labels, mask)
    indexed = Image.fromarray(_stored(mask, 8)).convert("P")  # one that says itself how it was stored
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    indexed.save(tmp_path / "mask.png", exif=_orientation(8))
    assert np.array_equal(dataset.read(dataset.train[0])[1], mask)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\x05\0"]
)
@pytest.mark.filterwarnings("error")
def test_an_image_with_damaged_exif_data_is_read_as_it_lies(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), RGB) and read_size(tmp_path / "a.png") == RGB.shape[:2]


# ---- what is wrong


@pytest.mark.parametrize(("reader", "what"), [(read_image, "image"), (read_mask, "mask")])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, reader, what: str) -> None:  # type: ignore[no-untyped-def]
    refusal = _refusal(reader, tmp_path / "none.png")
    assert str(refusal) == f"There is no {what} {tmp_path / 'none.png'}."


def _cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.02, 0.6])
def test_an_image_that_was_cut_short_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(NOISE).save(path)
    _cut(path, share)
    refusal = _refusal(read_image, path)
    assert refusal.what == f"The image {path} cannot be read: damaged, cut short, or no image."


@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    refusal = _refusal(read_mask, path)
    assert refusal.what == f"The mask {path} cannot be read: damaged, cut short, or no image."


def test_a_folder_in_the_place_of_an_image_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path) in _refusal(read_image, tmp_path).what


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_an_image_of_16_bits_is_refused_rather_than_clipped(tmp_path: Path, order: str) -> None:
    path = tmp_path / "a.tif"
    mode = {"<u2": "I;16", ">u2": "I;16B"}[order]
    Image.frombytes(mode, (4, 4), np.full(16, 4000, order).tobytes()).save(path)
    refusal = _refusal(read_image, path)
    assert str(refusal) == f"The image {path} has more than 8 bits a channel. Convert it to 8-bit RGB."


def test_an_image_too_large_to_be_read_whole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refusal = _refusal(read_image, tmp_path / "a.png")
    assert str(refusal) == f"The image {tmp_path / 'a.png'} is too large to be read whole. Cut it into tiles first."


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, RGB, np.zeros((9, 6), np.uint8))
    refusal = _refusal(dataset.read, dataset.train[0])
    assert str(refusal) == (
        f"The mask {tmp_path / 'mask.png'} is 6x9 pixels but its image is 9x6. "
        "Masks must have the size of their images."
    )


@pytest.mark.parametrize("label", [3, 200, 254])
def test_a_label_without_a_class_is_refused(tmp_path: Path, label: int) -> None:
    mask = np.zeros((6, 9), np.uint8)
    mask[4, 4] = label
    dataset = _dataset(tmp_path, RGB, mask)
    refusal = _refusal(dataset.read, dataset.train[0])
    assert refusal.what == (
        f"The mask {tmp_path / 'mask.png'} holds the label {label}, but there are 3 classes (0 to 2) "
        "and ignore index 255."
    )


def test_classes_and_the_ignore_index_are_not_refused() -> None:
    check_labels(np.array([[0, 1, 2, 255]], np.uint8), TASK, Path("m.png"))
    check_labels(np.array([[77]], np.uint8), TASK.model_copy(update={"ignore_index": 77}), Path("m.png"))


def test_an_unknown_colour_is_refused_by_its_code() -> None:
    rgb = np.array([[[0, 0, 1], [0xAB, 0x0C, 0xDE]]], np.uint8)
    refusal = _refusal(decode_colours, rgb, {(0, 0, 1): 0}, Path("m.png"))
    assert str(refusal) == "The mask m.png holds the colour #AB0CDE, which is no class's. Complete the class table."


def test_an_image_without_a_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").touch()
    for make in (lambda: None, lambda: (tmp_path / "masks").mkdir(), lambda: (tmp_path / "masks/b.png").touch()):
        make()
        refusal = _refusal(pair_up, tmp_path / "images", tmp_path / "masks")
        assert refusal.what == f"The image {tmp_path / 'images/a.jpg'} has no mask in {tmp_path / 'masks'}."


def test_an_empty_split_is_refused_by_its_name(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, RGB, np.zeros((6, 9), np.uint8))
    assert len(dataset.split("train")) == 1
    refusal = _refusal(dataset.split, "val")
    assert str(refusal) == f"{tmp_path} has no val images in the layout 'folder'."
