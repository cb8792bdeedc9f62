"""`cuvee explain` as a user meets it: trees, JSON, exit codes, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cuvee.cli import app

from .conftest import Built


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_an_id_gives_its_way(built: Built) -> None:
    done = run(built.run.path, built.chosen.id[:12])
    assert done.exit_code == 0
    assert f"trace {built.chosen.id} of the domain math" in done.stdout
    assert "training set chosen for the specialist math, 31 tokens" in done.stdout


def test_no_id_gives_the_listing(built: Built) -> None:
    done = run(built.run.path)
    assert done.exit_code == 0
    assert built.chosen.id in done.stdout
    assert "dropped: repetition" in done.stdout
    assert "05_specialists/math/preflight.json: not there yet" in done.stdout


def test_json_has_everything_and_whole_texts_in_ascii(built: Built) -> None:
    done = run(built.run.path, built.hostile.id, "--json")
    assert done.stdout.isascii()
    [way] = json.loads(done.stdout)["ways"]
    assert way["steps"][0]["asked"]["trace"]["reasoning"] == built.hostile.reasoning
    assert way["problem"]["place"] == "train.parquet, row 19"
    listing = json.loads(run(built.run.path, "--json", "--reason", "repetition").stdout)
    assert [group["ids"] for group in listing["groups"]] == [[built.hostile.id]]


def test_full_texts_are_shown_whole(built: Built) -> None:
    assert "--full shows them" in run(built.run.path, built.hostile.id).stdout
    assert "--full shows them" not in run(built.run.path, built.hostile.id, "--full").stdout


def test_a_domain_or_teacher_narrows(built: Built) -> None:
    both, one = (
        run(built.run.path, built.taken.id),
        run(built.run.path, built.taken.id, "--domain", "sums"),
    )
    assert both.stdout.count("problem " + built.taken.id + " of the") == 2
    assert one.stdout.count("problem " + built.taken.id + " of the") == 1
    deep = run(built.run.path, built.easy.id, "--teacher", "deep").stdout
    assert "by deep" in deep
    assert "by ann, sample 1" not in deep


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [(["nosuchid"], 1, "no id begins with 'nosuchid'"),
     (["--full"], 2, "--full needs an ID"),
     (["feed", "--reason", "chosen"], 2, "--reason needs no ID"),
     (["feed", "--domain", "nope"], 2, "--domain nope: not in this run; there are: math, talk"),
     (["--teacher", "nope"], 2, "--teacher nope: not in this run; there are: ann, deep")],
)  # fmt: skip
def test_what_cannot_be_is_refused(built: Built, flags: list[str], code: int, message: str) -> None:
    done = run(built.run.path, *flags)
    assert done.exit_code == code
    assert message in " ".join(done.stderr.split())


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.exit_code == 2
    assert "not the folder of a run" in done.stderr
