"""What a push would upload: every file and size; no path of this machine, no key, no failure."""

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import DataError
from cuvee.recipe import dump_recipe, parse_recipe
from cuvee.records import Parity, read_rows, write_rows
from cuvee.release.exports import parity_file
from cuvee.release.parcel import Parcel, make_parcel, portable
from cuvee.release.stage import tasks
from cuvee.runfolder import Run, execute

RELEASED = {
    "DATA_CARD.md", "MANIFEST.json", "Modelfile.Q8_0", "README.md", "parity.json", "recipe.yaml",
    "report.html", "small-blend.Q8_0.gguf",
}  # fmt: skip
MODEL = {
    "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json", "cuvee_merge.json",
}  # fmt: skip
HOME = Path("/home/ada")


def parcel(run: Run, **environment: str) -> Parcel:
    return make_parcel(run, environment=environment, home=HOME)


def with_recipe(run: Run, **changes: Any) -> Run:
    """The run of a changed recipe, released anew."""
    data = {**run.recipe.model_dump(mode="json"), **changes}
    other = dataclasses.replace(run, recipe=parse_recipe(data, where="the test"))
    (run.path / "recipe.yaml").write_text(dump_recipe(other.recipe))
    for task in tasks(other, ExitStack()):
        execute(other, task)
    return other


def test_every_file_is_listed_once_with_the_bytes_that_are_sent(released: Run) -> None:
    found = parcel(released)
    assert [u.path for u in found.uploads] == sorted(RELEASED | MODEL)
    sizes = {u.path: u.size for u in found.uploads}
    assert sizes["model.safetensors"] == (released.merged() / "model.safetensors").stat().st_size
    assert found.size == sum(sizes.values())


def test_everything_else_of_the_folder_is_left_out_with_a_reason(released: Run) -> None:
    stale = released.folder("release") / "small-blend.Q4_K_M.gguf"
    stale.write_bytes(b"x")
    (released.path / "log.txt").write_text("x")
    found = parcel(released)
    reasons = {left.path: left.reason for left in found.left_out}
    assert reasons["08_release/small-blend.Q4_K_M.gguf"] == "not of a type in release.gguf: [Q8_0]"
    assert reasons["log.txt"] == "a log"
    assert all(reasons.values())
    taken = {str(u.source.relative_to(released.path)) for u in found.uploads}
    for file in (p for p in released.path.rglob("*") if p.is_file() and p.name != ".lock"):
        name = str(file.relative_to(released.path))
        left = any(name == path or name.startswith(path) for path in reasons)
        assert left != (name in taken), name


def test_a_release_that_is_not_finished_is_refused_by_its_tasks(released: Run) -> None:
    (released.folder("release") / "README.md").unlink()
    (released.folder("release") / "small-blend.Q8_0.gguf").unlink()
    with pytest.raises(DataError, match=r"not released, or changed since: gguf/Q8_0, .*card"):
        parcel(released)


def test_a_file_that_did_not_pass_is_refused_with_what_to_do(released: Run) -> None:
    file = parity_file(released, "Q8_0")
    [row] = read_rows(file, Parity)
    write_rows(file, [dataclasses.replace(row, passed=False, detail="logits are off")], Parity)
    with pytest.raises(DataError, match=r"logits are off.*--set release.gguf=\[\]"):
        parcel(released)


def test_paths_of_this_machine_are_relative_in_our_texts_and_the_model_is_as_it_is(
    released: Run,
) -> None:
    record = released.merged() / "cuvee_merge.json"
    data = json.loads(record.read_text())
    data["inputs"] = [f"{released.path}/05_specialists/math", "/home/ada/base", "/data/big/base"]
    record.write_text(json.dumps(data))
    config = released.merged() / "config.json"
    config.write_text(config.read_text().replace("{", '{"_name_or_path": "/home/ada/base",', 1))
    found = parcel(with_recipe(released))
    texts = {u.path: u.text for u in found.uploads}
    sent = json.loads(texts["cuvee_merge.json"] or "")
    assert sent["inputs"] == ["05_specialists/math", "~/base", "/data/big/base"]
    assert texts["config.json"] is None
    assert any(
        "cuvee_merge.json names paths of this machine: /data/big/base" in n for n in found.notes
    )
    assert any(n.startswith("config.json") and "/home/ada/base" in n for n in found.notes)


def test_a_key_in_the_recipe_is_refused_before_anything_is_listed(released: Run) -> None:
    teachers = released.recipe.model_dump(mode="json")["teachers"]
    teachers[0]["terms"] = "use c0ffee-c0ffee"
    run = with_recipe(released, teachers=teachers)
    with pytest.raises(DataError, match=r"holds the value of the variable ADA_API_KEY"):
        parcel(run, ADA_API_KEY="c0ffee-c0ffee")


def test_switched_off_parity_is_told(released: Run) -> None:
    run = with_recipe(released, release={"gguf": ["Q8_0"], "parity": None})
    found = parcel(run)
    assert any("no GGUF file was compared" in note for note in found.notes)
    assert "parity.json" not in {u.path for u in found.uploads}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("/home/ada/x.gguf", "~/x.gguf"), ("/home/ada", "~"), ("/home/adam/x", "/home/adam/x"),
     ("/srv/home/ada/x", "/srv/home/ada/x"), ('"/runs/r/06_merged"', '"06_merged"'),
     ("/runs/r", "."), ("/runs/r.old/x", "/runs/r.old/x"), ("/home/ada.", "~.")],
)  # fmt: skip
def test_only_whole_paths_are_written_otherwise(text: str, expected: str) -> None:
    assert portable(text, run=Path("/runs/r"), home=HOME) == expected


@given(st.text(alphabet="/homeadrunsx. -\n", max_size=60))
def test_no_path_at_home_is_left(text: str) -> None:
    once = portable(text, run=Path("/runs/r"), home=HOME)
    assert portable(once, run=Path("/runs/r"), home=HOME) == once
    if "/home/ada" not in text and "/runs/r" not in text:
        assert once == text
