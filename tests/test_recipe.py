"""What a run is asked to do: defaults, then TOML, then flags; everything else is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edpct.errors import RecipeError
from edpct.recipe import CompressRecipe, Section, TrainRecipe
from edpct.recipe.file import load_recipe, recipe_toml

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


# ---- precedence


def test_without_file_and_flags_the_defaults_hold() -> None:
    recipe = load_recipe(CompressRecipe, None, {})
    assert recipe == CompressRecipe()
    assert (recipe.prune.macs, recipe.prune.round_to, recipe.distil.kl, recipe.export.size) == (None, "auto", 1.0, None)
    assert (recipe.prune.budget, recipe.prune.width_step) == (("macs", 0.1), 8)


def test_the_file_overrides_defaults_and_flags_override_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, "seed = 4\n[distil]\nsteps = 100\nbatch = 3\n[distil.akd]\npixel = 0.25\n")
    recipe = load_recipe(CompressRecipe, path, {"distil.steps": 7, "distil.akd.relation": 0.5, "prune.macs": 0.3})
    assert (recipe.seed, recipe.distil.batch, recipe.distil.akd.pixel) == (4, 3, 0.25)  # from the file
    assert (recipe.distil.steps, recipe.distil.akd.relation, recipe.prune.macs) == (7, 0.5, 0.3)  # from the flags
    assert (recipe.distil.akd.prototype, recipe.distil.lr) == (1.0, 1e-3)  # from the defaults


def test_a_flag_that_was_not_given_changes_nothing(tmp_path: Path) -> None:
    path = _file(tmp_path, "[train]\nsteps = 12\n")
    assert load_recipe(TrainRecipe, path, {"train.steps": None, "seed": None}).train.steps == 12


def test_a_flag_of_zero_counts_as_given(tmp_path: Path) -> None:
    path = _file(tmp_path, "seed = 3\n[train]\nvalidate_every = 12\n")
    recipe = load_recipe(TrainRecipe, path, {"train.validate_every": 0, "seed": 0})
    assert (recipe.seed, recipe.train.validate_every) == (0, 0)


def test_toml_lists_become_the_tuples_they_stand_for(tmp_path: Path) -> None:
    path = _file(tmp_path, '[export]\nsize = [256, 512]\n[bench]\nruntimes = ["onnxruntime"]\n')
    recipe = load_recipe(CompressRecipe, path, {})
    assert recipe.export.size == (256, 512) and recipe.bench.runtimes == ("onnxruntime",)


def test_losses_of_distillation_are_combined_at_will(tmp_path: Path) -> None:
    path = _file(tmp_path, '[distil]\nkl = 0\ncwd = 3\nifvd = 0.5\ntaps = ["fused"]\n[distil.akd]\nrelation = 0\n')
    distil = load_recipe(CompressRecipe, path, {}).distil
    assert (distil.kl, distil.cwd, distil.dist, distil.ifvd, distil.taps) == (0.0, 3.0, 0.0, 0.5, ("fused",))
    assert (distil.akd.relation, distil.akd.pixel) == (0.0, 1.0)
    printed = recipe_toml(CompressRecipe)
    for name in ("taps", "cwd", "dist", "attention_transfer", "rkd_distance", "ifvd"):
        assert any(
            line.startswith(f"{name} = ") and before.startswith("# ")
            for before, line in zip(printed.splitlines(), printed.splitlines()[1:], strict=False)
        )


# ---- budgets


@pytest.mark.parametrize(
    ("given", "amount"),
    [
        (0.3, 0.3), (1, 1.0), (4.7e9, 4.7e9), ("0.3", 0.3), ("30%", 0.3), (" 12.5 % ", 0.125), ("100%", 1.0),
        ("900k", 9e5), ("2.5M", 2.5e6), ("2.5m", 2.5e6), ("4.7G", 4.7e9), ("1 T", 1e12), ("1e6", 1e6),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_an_amount_is_a_share_or_a_count(given: object, amount: float, kind: str) -> None:
    recipe = load_recipe(CompressRecipe, None, {f"prune.{kind}": given})
    assert recipe.prune.budget == (kind, pytest.approx(amount, rel=1e-12))


@pytest.mark.parametrize("text", ["half", "", "%", "M", "3 of 4", "2.5MB", "30%%", "1,5M"])
def test_what_is_no_amount_is_refused_with_examples(text: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        load_recipe(CompressRecipe, None, {"prune.macs": text})
    assert refusal.value.what.startswith("setting 'prune.macs': ")
    assert refusal.value.what.endswith("give a share such as 0.3 or 30%, or a count such as 2.5M or 4.7G.")


@pytest.mark.parametrize(
    ("first", "second"), [("macs", "params"), ("macs", "ratio"), ("params", "target_fps"), ("ratio", "target_fps")]
)
def test_a_budget_given_twice_is_refused_by_both_names(tmp_path: Path, first: str, second: str) -> None:
    path = _file(tmp_path, f"[prune]\n{first} = 0.3\n{second} = 0.3\n")
    with pytest.raises(RecipeError) as refusal:
        load_recipe(CompressRecipe, path, {})
    with pytest.raises(RecipeError) as again:
        load_recipe(CompressRecipe, None, {f"prune.{first}": 0.3, f"prune.{second}": 0.3})
    assert refusal.value.what.endswith(again.value.what)
    assert f"the budget is given twice, as {first} and as {second}; give one." in refusal.value.what


def test_a_budget_on_the_command_line_takes_the_place_of_the_files(tmp_path: Path) -> None:
    path = _file(tmp_path, "[prune]\nmacs = 0.3\nround_to = 4\n")
    recipe = load_recipe(CompressRecipe, path, {"prune.target_fps": 20.0})
    assert recipe.prune.budget == ("target_fps", 20.0) and recipe.prune.round_to == 4


@pytest.mark.parametrize("kind", ["macs", "params", "ratio", "target_fps"])
def test_the_budget_is_the_one_that_was_given(kind: str) -> None:
    assert load_recipe(CompressRecipe, None, {f"prune.{kind}": 0.25}).prune.budget == (kind, 0.25)


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({}, 8),
        ({"round_to": 4}, 4),
        ({"round_to": 32}, 32),
        ({"target_fps": 60.0}, 8),  # timed on OpenVINO
        ({"target_fps": 60.0, "on": "tensorrt"}, 32),
        ({"target_fps": 60.0, "on": "tensorrt-rtx:0"}, 32),
        ({"target_fps": 60.0, "on": "tensorrt", "precision": "fp16"}, 8),
        ({"target_fps": 60.0, "on": "tensorrt", "round_to": 8}, 8),
        ({"on": "tensorrt"}, 8),  # nothing is timed
    ],
)
def test_widths_go_in_steps_that_suit_the_engine(settings: dict[str, Any], step: int) -> None:
    flags = {f"prune.{name}": value for name, value in settings.items()}
    assert load_recipe(CompressRecipe, None, flags).prune.width_step == step


# ---- the printed recipe


@pytest.mark.parametrize("kind", [TrainRecipe, CompressRecipe])
def test_the_printed_recipe_is_toml_that_gives_the_defaults(tmp_path: Path, kind: type[Section]) -> None:
    text = recipe_toml(kind)
    assert load_recipe(kind, _file(tmp_path, text), {}) == kind()


def test_the_printed_recipe_shows_every_setting_that_has_a_value() -> None:
    def leaves(values: dict[str, Any], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for key, value in values.items():
            found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
        return found

    shown = leaves(tomllib.loads(recipe_toml(CompressRecipe)))
    unset = {"macs", "params", "ratio", "target_fps", "min_miou", "max_miou_drop", "spare"}  # TOML has no null
    unset = {f"prune.{name}" for name in unset}
    unset |= {f"build.{name}" for name in ("timing_cache", "dla", "level", "workspace_mb")} | {"export.size"}
    assert shown == leaves(CompressRecipe().model_dump()) - unset
    assert {"distil.akd.tokens", "bench.threads", "seed"} <= shown


# ---- refusals


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("sede = 1", "sede"),
        ("[distil]\nstep = 1", "distil.step"),
        ("[distil.akd]\nangle = 1", "distil.akd.angle"),
        ("[quantize]\ncalibration_images = 8", "quantize"),
    ],
)
def test_an_unknown_setting_is_refused_by_its_name(tmp_path: Path, text: str, setting: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(RecipeError) as refusal:
        load_recipe(CompressRecipe, path, {})
    assert refusal.value.what == f"{path}: setting '{setting}': Extra inputs are not permitted."
    assert refusal.value.hint == "See the settings with: edpct recipe"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("seed", -1),
        ("prune.macs", 0.0),
        ("prune.macs", -0.3),
        ("prune.macs", float("nan")),
        ("prune.macs", float("inf")),
        ("prune.macs", "0%"),
        ("prune.params", "130%"),
        ("prune.ratio", 0.0),
        ("prune.ratio", 1.0),
        ("prune.ratio", -0.5),
        ("prune.ratio", 1.5),
        ("prune.target_fps", 0.0),
        ("prune.min_miou", 101.0),
        ("prune.max_miou_drop", 0.0),
        ("prune.round_to", 0),
        ("prune.round_to", "some"),
        ("prune.criterion", "l3"),
        ("prune.scope", "layer"),
        ("prune.iterations", -1),
        ("prune.images", 0),
        ("prune.graph_seconds", 0.0),
        ("prune.sparse.kind", "lasso"),
        ("prune.recovery.steps", 0),
        ("distil.steps", 0),
        ("distil.batch", 0),
        ("distil.crop", 32),
        ("distil.crop", 100),
        ("distil.lr", 0.0),
        ("distil.warmup", 1.0),
        ("distil.dice", -0.1),
        ("distil.scale", (-1.0, 1.0)),
        ("distil.scale", (0.0, 1.0)),
        ("distil.scale", (1.5, 0.5)),
        ("distil.precision", "fp16"),
        ("distil.save_every", 0),
        ("distil.log_every", 0),
        ("distil.schedule", "linear"),
        ("distil.ema", 1.0),
        ("distil.ema", -0.1),
        ("distil.accumulate", 0),
        ("distil.overlap", 1.0),
        ("distil.overlap", -0.5),
        ("distil.patience", -1),
        ("distil.temperature", 0.0),
        ("distil.taps", "fused"),
        ("distil.cwd", -1.0),
        ("distil.dist", -1.0),
        ("distil.attention_transfer", -1.0),
        ("distil.rkd_distance", -1.0),
        ("distil.ifvd", -1.0),
        ("distil.akd.tokens", 2),
        ("distil.akd.tokens", 257),
        ("export.opset", 17),
        ("export.tolerance", 0.0),
        ("bench.seconds", 0.0),
        ("bench.threads", -1),
        ("bench.runtimes", ()),
        ("build.target", "tpu"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(setting: str, value: object) -> None:
    with pytest.raises(RecipeError) as refusal:
        load_recipe(CompressRecipe, None, {setting: value})
    assert refusal.value.what.startswith(f"setting '{setting}'") and refusal.value.what.endswith(".")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"train.batch": 2, "train.accumulate": 3}, "accumulate 3 is more than the 2 crops of a batch."),
        ({"train.patience": 2, "train.validate_every": 0}, "patience counts validations; give validate_every, too."),
    ],
)
def test_settings_of_a_training_that_contradict_each_other_are_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        load_recipe(TrainRecipe, None, flags)
    assert refusal.value.what == f"setting 'train': Value error, {said}"


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refusal:
        load_recipe(TrainRecipe, tmp_path / "none.toml", {})
    assert str(refusal.value) == (
        f"There is no recipe {tmp_path / 'none.toml'}. Write one with: edpct recipe > recipe.toml"
    )


@pytest.mark.parametrize("content", [b"seed = = 1", b"[train\nsteps = 1", b"seed = 1\nseed = 2", b"\xff\xfe\x00"])
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"recipe\.toml cannot be read as TOML: "):
        load_recipe(TrainRecipe, path, {})


def test_a_folder_in_the_place_of_the_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read as TOML"):
        load_recipe(TrainRecipe, tmp_path, {})


def test_a_section_that_is_no_table_is_refused_with_and_without_a_flag_for_it(tmp_path: Path) -> None:
    path = _file(tmp_path, "train = 5\n")
    for flags in ({}, {"train.steps": 3}):
        with pytest.raises(RecipeError, match="setting 'train'"):
            load_recipe(TrainRecipe, path, flags)


def test_settings_cannot_be_changed_after_they_were_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainRecipe().seed = 1  # type: ignore[misc]
