"""The data card: front matter the hub reads, numbers of the run, nothing guessed, all escaped."""

import json
import re
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard

from cuvee.lineage.card_facts import card_facts, card_files
from cuvee.lineage.data_card import (
    SIZES,
    front_matter,
    plain,
    render_data_card,
    size_category,
    word,
)
from cuvee.recipe import Recipe, parse_recipe
from cuvee.records import Dropped, read_rows, write_rows
from cuvee.runfolder import Run
from cuvee.select.funnel import Funnel, Shares, funnel_file, write_funnel

from .conftest import Built

EVIL = "| evil | <script>alert(1)</script> [x](http://y) `t` **b** \x1b[31m \u202e\n# head\n---"


def changed(run: Run, **changes: Any) -> Run:
    data = {**run.recipe.model_dump(mode="json"), **changes}
    return Run(run.path, parse_recipe(data, where="the test"))


def card(run: Run) -> str:
    return render_data_card(card_facts(run))


def rows_of(text: str) -> dict[str, list[list[str]]]:
    """Return the tables of a card: heading -> rows of cells."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found.setdefault(heading, []).append([cell.strip() for cell in cells])
    return found


def test_the_hub_reads_the_front_matter(built: Built) -> None:
    data = DatasetCard(card(built.run)).data
    assert data.pretty_name == "small"
    assert data.license == "unknown"
    assert data.size_categories == ["n<1K"]
    assert data.task_categories == ["text-generation"]
    assert data.language == ["en"]
    assert data.source_datasets == ["owner/numbers"]
    assert data.configs == [
        {"config_name": "math", "data_files": "math.parquet"},
        {"config_name": "talk", "data_files": "talk.parquet"},
    ]


def stated(built: Built) -> Run:
    """The run with every licence and all terms stated."""
    teachers = [{**t, "terms": "MIT"} for t in built.run.recipe.model_dump(mode="json")["teachers"]]
    return changed(built.run, teachers=teachers)


def test_a_licence_is_named_by_nobody_where_all_parts_are_stated(built: Built) -> None:
    front = front_matter(card_facts(stated(built)))
    assert "license" not in front
    assert "**Warning.** No terms" not in card(stated(built))


def test_terms_nobody_stated_are_warned_of(built: Built) -> None:
    text = card(built.run)
    assert "> **Warning.** No terms are stated for these teachers: deep." in text
    [deep] = [row for row in rows_of(text)["Teachers and their terms"] if row[0] == "deep"]
    assert deep[:3] == ["deep", "published", "unknown"]
    assert deep[-1] == "unknown", "what was published cost nobody knows what"


def test_licences_nobody_stated_are_warned_of(built: Built) -> None:
    record = json.loads(built.run.sources("math").read_text())
    record[0]["licence"] = None
    built.run.sources("math").write_text(json.dumps(record))
    run = stated(built)
    assert "> **Warning.** The licence of these sources is unknown: owner/numbers." in card(run)
    assert front_matter(card_facts(run))["license"] == "unknown"


def test_sources_have_revision_licence_and_counts_or_unknown(built: Built) -> None:
    rows = rows_of(card(built.run))["Sources"]
    assert rows[2] == [
        "math", "owner/numbers", "all", "train", "0123abcd", "apache-2.0", "9", "4", "3",
    ]  # fmt: skip
    assert rows[3] == [
        "talk", "talk.jsonl", "", "train", "unknown", "CC-BY-4.0", "unknown", "unknown", "unknown",
    ]  # fmt: skip
    assert "What was read of these sources was not recorded: talk.jsonl." in card(built.run)


def test_the_funnel_is_that_of_the_run(built: Built) -> None:
    tables = rows_of(card(built.run))
    assert tables["math"][2:] == [
        ["problems", "kept", "", "2"],
        ["problems", "dropped", "`exact_duplicate`", "1"],
        ["problems", "dropped", "`in_benchmark`", "1"],
        ["problems", "dropped", "`no_question`", "1"],
        ["teach", "ann", "`stop`", "3"],
        ["teach", "ann", "`error`", "1"],
        ["teach", "deep", "`stop`", "1"],
        ["verify", "correct", "`equal`", "3"],
        ["verify", "not\\_checked", "`request_failed`", "1"],
        ["verify", "wrong", "`different`", "1"],
        ["select", "chosen", "", "1"],
        ["select", "dropped", "`not_chosen`", "1"],
        ["select", "dropped", "`repetition`", "1"],
        ["select", "dropped", "`request_failed`", "1"],
        ["select", "dropped", "`verdict_wrong`", "1"],
    ]
    [ann] = [row for row in tables["Teachers and their terms"] if row[0] == "ann"]
    assert ann == ["ann", "ann-7b", "MIT", "5", "1", "3", "math 1, talk 1", "120", "0.00"]
    assert tables["What is in it"][2][2:6] == ["1", "31", "31", "31"]


def test_a_judge_answers_no_problem_and_is_no_teacher_of_the_set(built: Built) -> None:
    assert not [r for r in rows_of(card(built.run))["Teachers and their terms"] if r[0] == "jan"]
    assert "checked by the verifier `judge` (jan)" in card(built.run)


def test_traces_without_an_end_are_warned_of(built: Built) -> None:
    file = built.run.dropped("select", "math")
    write_rows(file, read_rows(file, Dropped)[1:], Dropped)
    assert "1 traces of math are neither chosen nor dropped" in card(built.run)


def hostile(recipe: Recipe) -> dict[str, Any]:
    """A recipe that says something hostile wherever it may say anything."""
    data = recipe.model_dump(mode="json")
    for teacher in data["teachers"]:
        teacher["terms"] = EVIL
        teacher["model"] = EVIL if teacher["url"] else None
    data["domains"]["talk"]["problems"][0]["licence"] = EVIL
    data["domains"]["math"]["prompt"] = "{question}" + EVIL
    data["base"] = EVIL
    return data


def test_nothing_that_is_stated_breaks_out_of_its_place(built: Built) -> None:
    record = json.loads(built.run.sources("math").read_text())
    record[0] |= {"source": EVIL, "revision": EVIL, "licence": EVIL}
    built.run.sources("math").write_text(json.dumps(record))
    file = built.run.dropped("problems", "math")
    write_rows(file, [Dropped("1", "math", "problem", None, EVIL, EVIL)], Dropped)
    text = card(Run(built.run.path, parse_recipe(hostile(built.run.recipe), where="the test")))
    assert not re.search(r"(?<!\\)<script", text)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not [line for line in text.splitlines() if line.startswith("# head")]
    clean = rows_of(card(built.run))
    for heading, table in rows_of(text).items():
        widths = {len(row) for row in table}
        assert len(widths) == 1, heading
        assert widths == {len(clean[heading][0])}
    assert yaml.safe_load(text.split("---\n")[1])["pretty_name"] == "small"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a_b", "a\\_b"), ("a|b", "a\\|b"), ("<b>", "\\<b\\>"), ("a\nb", "a b"), ("\\", "\\\\"),
     ("\x1b", "\\\\x1b"), ("&lt;", "\\&lt;")],
)  # fmt: skip
def test_plain_text_stays_what_it_is(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_word_is_code_unless_that_would_end_it() -> None:
    assert word("a_b") == "`a_b`"
    assert word("a|b") == "`a\\|b`"
    assert word("a`b") == "a\\`b"
    assert word("") == ""


def test_size_categories_are_those_of_the_hub() -> None:
    assert [size_category(n) for n in (0, 999, 1000, 10**6, 10**8, 10**9)] == [
        "n<1K", "n<1K", "1K<n<10K", "1M<n<10M", "100M<n<1B", "100M<n<1B",
    ]  # fmt: skip
    assert [size_category(end - 1) for end, _ in SIZES] == [name for _, name in SIZES]


def test_every_file_that_is_read_is_an_input(built: Built) -> None:
    files = card_files(built.run)
    assert all(path.exists() for path in files)
    for path in files:
        kept = path.read_bytes()
        path.write_bytes(b"neither Parquet nor JSON")
        with pytest.raises(Exception, match=path.name):
            card(built.run)
        path.write_bytes(kept)


def test_what_select_counted_by_source_and_difficulty_is_told(built: Built) -> None:
    nothing = Shares(0, 0, 0, 0, 0)
    counted = Shares(traces=5, fit=2, chosen=1, problems=2, problems_chosen=1)
    funnel = Funnel(
        domain="math",
        total=counted,
        steps=(),
        teachers={},
        sources={"owner/numbers": counted},
        difficulty={"0.0-0.2": counted, "unknown": nothing},
        votes={},
    )
    file = funnel_file(built.run, "math")
    write_funnel(file, funnel)
    assert file in card_files(built.run)
    rows = rows_of(card(built.run))["math"]
    assert ["source owner/numbers", "2", "1", "5", "2", "1"] in rows
    assert ["difficulty unknown", "0", "0", "0", "0", "0"] in rows
