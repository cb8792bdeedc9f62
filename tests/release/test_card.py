"""The model card: front matter the hub understands, the report's numbers, nothing guessed."""

import dataclasses
import json
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from cuvee.models.files import is_hub_id
from cuvee.recipe import parse_recipe
from cuvee.release.card import front_matter, render_card
from cuvee.release.facts import Facts
from cuvee.release.report import render_report
from cuvee.serve.facts import ServingFacts


@pytest.mark.parametrize(
    ("name", "expected"),
    [("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", True), ("models/base.gguf", False),
     ("random:two-layer", False), ("/data/base", False), ("./base", False),
     ("~/models/x", False), ("data/train.parquet", False), ("generator:sums", False)],
)  # fmt: skip
def test_only_hub_ids_are_called_hub_ids(name: str, *, expected: bool) -> None:
    assert is_hub_id(name) is expected


def test_the_hub_reads_the_scores_with_their_n(facts: Facts, serving: ServingFacts) -> None:
    card = ModelCard(render_card(facts, serving))
    results = card.data.eval_results
    assert [(r.dataset_name, r.metric_value) for r in results] == [("sums", 31.25), ("lists", 75.0)]
    assert "64 problems × 1 sample" in results[0].metric_name
    assert results[0].metric_type == "accuracy"


def test_what_is_unknown_is_left_out_and_said(facts: Facts, serving: ServingFacts) -> None:
    text = render_card(facts, serving)
    front: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    assert not {"license", "base_model", "datasets"} & set(front)
    assert "**Licence:** unknown" in text
    assert "the front matter names no base model" in text


def test_hub_bases_and_sources_stand_in_the_front_matter(facts: Facts) -> None:
    data = facts.recipe.model_dump(mode="json")
    data["base"] = "owner/base"
    data["domains"]["math"]["problems"] = [{"source": "owner/set"}, {"source": "local.jsonl"}]
    hub = dataclasses.replace(facts, recipe=parse_recipe(data, where="the test"))
    front = front_matter(hub)
    assert front["base_model"] == "owner/base"
    assert front["base_model_relation"] == "merge"
    assert front["datasets"] == ["owner/set"]


def test_a_score_without_a_headline_is_not_in_the_index(facts: Facts) -> None:
    unsure = tuple(dataclasses.replace(s, mean=None) for s in facts.scores)
    assert "model-index" not in front_matter(dataclasses.replace(facts, scores=unsure))


def test_scores_of_other_problems_than_were_published_say_so(
    facts: Facts, serving: ServingFacts
) -> None:
    data = facts.recipe.model_dump(mode="json")
    data["evaluate"]["benchmarks"] = {"gsm8k": 1}
    scores = tuple(dataclasses.replace(s, benchmark="gsm8k") for s in facts.scores[:4])
    other = dataclasses.replace(
        facts, recipe=parse_recipe(data, where="the test"), scores=scores, comparisons=()
    )
    said = "gsm8k: scored on 64 problems, and published with 1,319"
    assert said in render_card(other, serving)
    assert said in render_report(other)
    assert "published with" not in render_card(facts, serving)


def test_llama_s_own_defaults_are_told_where_it_sampled(
    facts: Facts, serving: ServingFacts
) -> None:
    def card(engine: str, temperature: float) -> str:
        protocol = json.dumps(
            {"serve": {"engine": engine}, "sampling": {"temperature": temperature}}
        )
        scores = tuple(dataclasses.replace(s, protocol=protocol) for s in facts.scores)
        return render_card(dataclasses.replace(facts, scores=scores), serving)

    assert "top_k 40 and min_p 0.05" in card("llama.cpp", 0.6)
    assert "top_k 40" not in card("llama.cpp", 0.0)
    assert "top_k 40" not in card("vllm", 0.6)


def test_tables_are_whole_whatever_stands_in_a_cell(facts: Facts, serving: ServingFacts) -> None:
    rows = [line for line in render_card(facts, serving).splitlines() if line.startswith("| ")]
    teachers = [line for line in rows if line.startswith(("| alice", "| bob", "| carol"))]
    assert len(teachers) == 3
    assert all(line.replace("\\|", "").count("|") == 8 for line in teachers)
    assert "a \\| b c" in teachers[1]


def test_the_card_has_the_report_s_numbers_and_the_teachers_terms(
    facts: Facts, serving: ServingFacts
) -> None:
    text = render_card(facts, serving).replace("\u00a0", " ")
    assert "| sums | merged | 31.2 % | 19.2 % to 43.2 % | 64 × 1 |" in text
    assert "Wrong results that reached training: 0" in text.replace("wrong", "Wrong")
    assert "Apache-2.0" in text
    assert "not stated" in text


def test_the_mixture_is_scored_in_the_card_and_said_to_be_no_part_of_the_model(
    facts: Facts, serving: ServingFacts
) -> None:
    text = render_card(facts, serving).replace("\u00a0", " ")
    assert "| sums | mixture | 39.1 % |" in text
    assert "| lists | merged − mixture | +12.5 |" in text
    assert "**Baseline:** the mixture is one model" in text
    names = {r.dataset_name for r in ModelCard(render_card(facts, serving)).data.eval_results}
    assert names == {"sums", "lists"}  # the merged model's own scores alone
    plain = dataclasses.replace(facts, recipe=facts.recipe.model_copy(update={"baseline": None}))
    assert "Baseline" not in render_card(plain, serving)


def test_no_text_of_a_model_stands_in_the_card(facts: Facts, serving: ServingFacts) -> None:
    text = render_card(facts, serving)
    assert "<script>" not in text
    assert "boxed" not in text
