"""What docs/train.md says is what the code does: keys, defaults, files, what retrains."""

import re
from pathlib import Path

import yaml

from cuvee.recipe import Train
from cuvee.train.guard import WINDOW
from cuvee.train.job import NOT_IN_THE_WEIGHTS

PAGE = (Path(__file__).parent.parent / "docs" / "train.md").read_text(encoding="utf-8")


def test_every_recipe_that_is_shown_is_read() -> None:
    found = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    assert len(found) == 2
    for data in found:
        assert Train.model_validate(data.pop("train"))
        assert not data


def test_every_key_but_those_of_the_optimizer_is_spoken_of() -> None:
    optimizer = ["weight_decay", "adam_beta2", "max_grad_norm"]
    assert [key for key in Train.model_fields if f"{key}" not in PAGE] == [*optimizer, "precision"]


def test_defaults_and_limits_are_those_of_the_code() -> None:
    train = Train()
    assert f"`max_spike` ({train.max_spike:g}) times the median of the {WINDOW} steps" in PAGE
    assert f"{train.scheduler} (default)" in PAGE
    assert train.gradient_checkpointing
    assert train.weights == "fp32"
    assert not train.report_to


def test_what_decides_no_weight_is_listed() -> None:
    listed = PAGE.partition("These decide\nnone: ")[2].partition("`best_checkpoint`")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == NOT_IN_THE_WEIGHTS


def test_the_columns_of_the_logs_are_named() -> None:
    for column in ("step", "loss", "learning_rate", "grad_norm", "tokens", "seconds"):
        assert f"`{column}`" in PAGE
