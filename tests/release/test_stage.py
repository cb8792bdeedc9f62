"""The stage: what the recipe asks for is written once, and again only when it must be."""

import copy
import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from cuvee.errors import DataError, RecipeError
from cuvee.recipe import parse_recipe
from cuvee.records import Parity, Trace, read_rows, write_rows
from cuvee.release.card import render_card
from cuvee.release.exports import parity_table, read_exports
from cuvee.release.gather import gather
from cuvee.release.stage import tasks
from cuvee.runfolder import Run, Task, execute, is_done, read_manifest
from cuvee.serve.facts import ServingFacts


def found(run: Run) -> dict[str, Task]:
    return {task.name: task for task in tasks(run, ExitStack())}


def changed(run: Run, **changes: Any) -> Run:
    data = {**run.recipe.model_dump(mode="json"), **changes}
    return dataclasses.replace(run, recipe=parse_recipe(data, where="the test"))


def states(run: Run) -> dict[str, bool]:
    manifest = read_manifest(run.path)
    return {name: is_done(run, task, manifest) for name, task in found(run).items()}


ALL = ["gguf/Q8_0", "parity/Q8_0", "modelfile", "parity", "report", "card", "data_card"]


def but(*names: str) -> dict[str, bool]:
    """All tasks done, but those."""
    return {name: name not in names for name in ALL}


def test_the_recipe_decides_what_is_released(finished: Run) -> None:
    assert list(found(finished)) == ALL
    bare = changed(finished, release={"card": False, "gguf": []})
    assert list(found(bare)) == ["report"]
    alone = changed(finished, release={"card": False, "gguf": ["F16", "Q8_0"], "parity": None})
    assert list(found(alone)) == ["gguf/F16", "gguf/Q8_0", "modelfile", "report"]


def test_report_and_card_come_last_and_depend_on_every_file(finished: Run) -> None:
    tasks = found(finished)
    rows = set(tasks["gguf/Q8_0"].outputs[1:]) | set(tasks["parity/Q8_0"].outputs)
    assert rows <= set(tasks["report"].inputs)
    assert rows <= set(tasks["card"].inputs)


def test_all_of_it_is_written_and_a_second_run_does_nothing(released: Run) -> None:
    folder = released.folder("release")
    assert sorted(path.name for path in folder.iterdir()) == [
        "DATA_CARD.md",
        "Modelfile.Q8_0",
        "README.md",
        "exports",
        "parity.json",
        "parity.parquet",
        "report.html",
        "small-blend.Q8_0.gguf",
    ]
    assert GGUFReader(folder / "small-blend.Q8_0.gguf").tensors
    assert states(released) == but()


def test_the_row_of_parity_stands_in_table_report_and_card(released: Run) -> None:
    [row] = read_rows(parity_table(released), Parity)
    assert (row.file, row.quantization, row.passed) == ("small-blend.Q8_0.gguf", "Q8_0", True)
    assert row.bytes == (released.folder("release") / row.file).stat().st_size
    assert json.loads(parity_table(released).with_suffix(".json").read_text()) == [
        dataclasses.asdict(row)
    ]
    card = (released.folder("release") / "README.md").read_text()
    assert f"| Q8_0 | 0 of {row.texts} differ | 0 of {row.chats} differ |" in card
    page = (released.folder("release") / "report.html").read_text()
    assert "small-blend.Q8_0.gguf" in page


def test_another_template_fails_the_task_and_its_row_stays(released: Run) -> None:
    task = found(released)["parity/Q8_0"]
    template = released.merged() / "chat_template.jinja"
    template.write_text(template.read_text() + " Changed after the export.")
    with pytest.raises(DataError, match=r"the chat template differs .* Do not hand this file out"):
        execute(released, task)
    assert not states(released)["parity/Q8_0"]
    [export] = read_exports(released)
    assert export.broken
    execute(released, found(released)["card"])
    card = (released.folder("release") / "README.md").read_text()
    assert "**Do not use `small-blend.Q8_0.gguf`:**" in card
    assert "ollama create" not in card


def test_what_was_not_compared_is_said_to_be_so(released: Run) -> None:
    run = changed(released, release={"gguf": ["Q8_0"], "parity": None})
    for name in ("report", "card"):
        execute(run, found(run)[name])
    folder = run.folder("release")
    assert "<code>release.parity</code> is null" in (folder / "report.html").read_text()
    assert "was compared with the weights" in (folder / "README.md").read_text()


def test_a_changed_trace_rewrites_report_and_cards_but_not_the_model(released: Run) -> None:
    file = released.traces("math", "alice")
    write_rows(file, read_rows(file, Trace)[1:], Trace)
    assert states(released) == but("report", "card", "data_card")


@pytest.mark.parametrize("name", ["held_out.jsonl", "preflight.html", "train_log.jsonl"])
def test_what_a_training_said_of_itself_is_read_anew(released: Run, name: str) -> None:
    file = released.specialist("mixture") / name
    file.write_text(file.read_text() + "\n")
    assert not states(released)["report"]
    file.unlink()
    assert not states(released)["report"]


def test_how_requests_are_sent_changes_the_printed_recipe_alone(released: Run) -> None:
    teachers = [{**t, "concurrency": 3} for t in released.recipe.model_dump()["teachers"]]
    run = changed(released, teachers=teachers)
    assert states(run) == but("report")


def test_terms_of_a_teacher_stand_in_report_and_cards(released: Run) -> None:
    teachers = [{**t, "terms": "MIT"} for t in released.recipe.model_dump()["teachers"]]
    run = changed(released, teachers=teachers)
    assert states(run) == but("report", "card", "data_card")


def test_what_is_missing_is_named_with_the_stage_that_writes_it(finished: Run) -> None:
    missing: Path = finished.scores()
    missing.unlink()
    with pytest.raises(DataError, match=r"scores\.parquet: missing; `cuvee evaluate` writes it"):
        execute(finished, found(finished)["report"])


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value of a recipe that is neither a mapping nor a list."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from leaves(inner, (*path, key))
    else:
        yield path


def with_other(data: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    """Return a recipe's data with another value at a path."""
    other = copy.deepcopy(data)
    inner = other
    for key in path[:-1]:
        inner = inner[key]
    old = inner[path[-1]]
    if isinstance(old, bool):
        inner[path[-1]] = not old
    elif isinstance(old, int | float):
        inner[path[-1]] = old + 1
    else:
        inner[path[-1]] = f"{old}x" if old else "x"
    return other


def test_whatever_changes_the_card_changes_what_its_task_depends_on(
    finished: Run, serving: ServingFacts
) -> None:
    data = finished.recipe.model_dump(mode="json")
    facts = gather(finished)
    before, text = found(finished)["card"].settings, render_card(facts, serving)
    changed = 0
    for path in leaves(data):
        if path[:2] in {("domains", "code"), ("teachers", 1), ("teachers", 2)}:
            continue  # one of each is enough
        if path == ("release", "card"):
            continue  # there is none then
        try:
            recipe = parse_recipe(with_other(data, path), where="the test")
            after = found(dataclasses.replace(finished, recipe=recipe))["card"].settings
        except RecipeError:
            continue
        if render_card(dataclasses.replace(facts, recipe=recipe), serving) != text:
            changed += 1
            assert after != before, path
    assert changed >= 5
