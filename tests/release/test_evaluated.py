"""The part of the report that people look at first, over a run as a real one would be.

Three benchmarks of two domains, one outside them, 64 to 1 samples a problem, two teachers that
were scored, one of them under another protocol, and rows that others published.
"""

import dataclasses
import html
import json
import random
import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from cuvee.records import Comparison, Score
from cuvee.release.card import render_card
from cuvee.release.facts import Facts, Pairing, Published, TaskTime, TeacherCount
from cuvee.release.report import render_report
from cuvee.serve.facts import ServingFacts

MEANS = {
    "aime24": ("math", 30, 64, {"base": 0.726, "math": 0.79, "code": 0.70, "mixture": 0.753,
                                "merged": 0.781, "deepseek-r1": 0.798, "qwq-32b": 0.795}),
    "math500": ("math", 500, 4, {"base": 0.943, "math": 0.951, "code": 0.94, "mixture": 0.949,
                                 "merged": 0.952}),
    "livecodebench": ("code", 279, 16, {"base": 0.572, "math": 0.55, "code": 0.634,
                                        "mixture": 0.61, "merged": 0.616}),
    "ifeval": ("other", 541, 1, {"base": 0.755, "math": 0.631, "code": 0.622, "mixture": 0.64,
                                 "merged": 0.640}),
}  # fmt: skip
PUBLISHED = {
    "aime24": (
        Published("FairyR1-32B", 0.804, "PKU-DS-LAB model card", "32 samples"),
        Published("DeepSeek-R1", 0.798, "arXiv 2501.12948, table 5", "64 samples, T 0.6"),
        Published("TinyR1-32B-Preview", 0.781, "arXiv 2503.04872, table 1", "16 samples"),
        Published("R1-Distill-Qwen-32B", 0.726, "arXiv 2501.12948, table 5", ""),
    ),
    "livecodebench": (
        Published("FairyR1-32B", 0.677, "PKU-DS-LAB model card", "<b>2024-08 to 2025-02</b>"),
    ),
}


def protocol(benchmark: str, *, samples: int, max_tokens: int = 32768) -> str:
    sampling = {"temperature": 0.6, "top_p": 0.95, "max_tokens": max_tokens}
    return json.dumps(
        {
            "benchmark": benchmark, "source": f"owner/{benchmark}", "config": None,
            "split": "test", "revision": "5cf4d2c", "limit": None,
            "prompt": "{question}\n\nPlease reason step by step.", "samples": samples,
            "seed": 42, "sampling": sampling,
            "serve": {"engine": "vllm", "quantization": None, "version": "0.33.0"},
        }
    )  # fmt: skip


def at_k(mean: float, samples: int, *, vote: bool) -> str:
    """Estimates that rise with k, for powers of two up to the number of samples."""
    found: dict[str, Any] = {}
    for power in range(samples.bit_length()):
        value = 1 - (1 - mean) * (0.93 if vote else 0.84) ** power
        found[str(2**power)] = {"mean": value, "low": value - 0.08, "high": min(1, value + 0.07)}
        if vote:
            found[str(2**power)]["tied"] = 0.031
    return json.dumps(found)


def score_of(model: str, benchmark: str) -> Score:
    domain, problems, samples, means = MEANS[benchmark]
    mean, n = means[model], problems * samples
    half, correct = 1.6 * (mean * (1 - mean) / problems) ** 0.5, round(mean * n)
    rest = n - correct
    return Score(
        model, benchmark, domain, mean, max(0, mean - half), min(1, mean + half), mean, mean,
        problems, n, correct, rest - rest // 3, rest // 3, rest // 4, 0,
        9600.0 if model != "qwq-32b" else None,
        protocol(benchmark, samples=samples, max_tokens=16384 if model == "qwq-32b" else 32768),
        pass_at=at_k(mean, samples, vote=False),
        maj_at=at_k(mean, samples, vote=True) if domain == "math" else "{}",
        se_problems=half / 2, se_samples=half / 9 if samples > 1 else None,
    )  # fmt: skip


def compare(model: str, against: str, benchmark: str) -> Comparison:
    _, problems, _, means = MEANS[benchmark]
    difference, half = means[model] - means[against], 0.62 / problems**0.5 / 2
    unclear = abs(difference) < half
    protocols = {"sampling.max_tokens": [32768, 16384]} if against == "qwq-32b" else {}
    return Comparison(
        model, against, benchmark, difference, difference - half, difference + half,
        0.21 if unclear else 0.0004, problems,
        samples_needed=None if problems == 30 or not unclear else 24,
        problems_needed=1840 if unclear else None, protocols=json.dumps(protocols),
    )  # fmt: skip


def pairing(benchmark: str, against: str, rng: random.Random) -> Pairing:
    _, problems, samples, means = MEANS[benchmark]

    def right(difficulty: float, mean: float) -> float:
        chance = min(1, max(0, difficulty + mean - 0.5))
        return sum(rng.random() < chance for _ in range(samples)) / samples

    spread = [rng.betavariate(0.5, 0.5) for _ in range(problems)]
    shares = tuple((right(d, means["merged"]), right(d, means[against])) for d in spread)
    return Pairing(benchmark, "merged", against, shares, left_out=0)


def teacher(name: str, *, usd: float | None, examples: int) -> TeacherCount:
    return TeacherCount(
        name, "url", f"models/{name}", "MIT", 12_400, 12, 310, 12_100, 9_120, examples,
        81_200_000, 0, usd,
    )  # fmt: skip


@pytest.fixture(scope="session")
def evaluated(facts: Facts) -> Facts:
    """The small run's facts with the scores of a large one."""
    rng = random.Random(0)
    pairs = [("math", "base"), ("code", "base"), ("mixture", "base"), ("merged", "base"),
             ("merged", "math"), ("merged", "code"), ("merged", "mixture"),
             ("merged", "deepseek-r1"), ("merged", "qwq-32b")]  # fmt: skip
    asked = {"sent": 24_400, "from_ledger": 400, "completion_tokens": 162_400_000}
    teach = TaskTime("teach", "math/deepseek-r1", "2026-11-20T08:00:00Z", 31_000.0,
                     asked | {"usd": 211.42})  # fmt: skip
    return dataclasses.replace(
        facts,
        scores=tuple(score_of(m, b) for b, bench in MEANS.items() for m in bench[3]),
        comparisons=tuple(
            compare(*pair, b) for b in MEANS for pair in pairs if set(pair) <= set(MEANS[b][3])
        ),
        published=PUBLISHED,
        pairings=tuple(
            pairing(b, against, rng)
            for b, bench in MEANS.items()
            for against in ("base", bench[0])
            if against in bench[3]
        ),
        teachers=(
            teacher("deepseek-r1", usd=178.2, examples=6_600),
            teacher("qwq-32b", usd=33.22, examples=3_800),
            *facts.teachers,
        ),
        tasks=(*facts.tasks, teach),
    )


def text_of(page: str) -> str:
    """The page's words: tags out, entities read, spaces joined."""
    body = re.sub(r"<style>.*?</style>|<title>.*?</title>", " ", page, flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\u00a0", " ")
    return " ".join(words.split())


def test_the_first_sentence_says_whether_it_worked_with_numbers(evaluated: Facts) -> None:
    page = render_report(evaluated)
    [first] = re.findall(r"<h1>(.*?)</h1>", page, flags=re.DOTALL)
    assert text_of(first) == (
        "It worked in part: against the base, the merged model is better on livecodebench "
        "(+4.4 points, to 61.6 %) and not shown to differ on aime24 (+5.5 points) and math500 "
        "(+0.9 points); against the domains’ specialists (the merge tax), it is not shown to "
        "differ on aime24 (−0.9 points), math500 (+0.1 points) and livecodebench (−1.8 points); "
        "outside its domains, it is worse on ifeval (−11.5 points)."
    )


def test_what_others_published_stands_apart_with_its_source(evaluated: Facts) -> None:
    page = render_report(evaluated)
    rows = re.findall(r'<tr class="published">.*?</tr>', page, flags=re.DOTALL)
    assert len(rows) == 5
    assert text_of(rows[0]).startswith("FairyR1-32B 80.4 %")
    assert all("published: " in row and "95 % interval" not in row for row in rows)
    assert "Their protocol (prompt, sampling, harness, number of samples) may differ" in page
    assert "<b>2024-08" not in page
    bare = dataclasses.replace(evaluated, published={})
    assert "others published" not in render_report(bare)


def test_a_score_under_another_protocol_is_never_shown_without_saying_so(
    evaluated: Facts, facts: Facts
) -> None:
    words = text_of(render_report(evaluated))
    assert "aime24: qwq-32b (teacher): taken with another protocol" in words
    assert "sampling.max_tokens: 16384, not 32768" in words
    assert "aime24: 1 comparison between scores of different protocols" in words
    assert "another protocol" not in text_of(render_report(facts))


def test_gains_and_merge_tax_stand_by_domain_and_what_is_outside_last(evaluated: Facts) -> None:
    page = render_report(evaluated)
    gains = page[page.index('id="gains"') : page.index('id="settle"')]
    titles = [text_of(title) for title in re.findall(r"<h3.*?</h3>", gains)]
    assert titles == ["math", "code", "outside the domains · what was forgotten, or learnt beside"]
    assert gains.count("merge tax: merged − specialist") == 3
    assert gains.count("merged − mixture") == 4


def test_what_is_not_shown_says_what_would_settle_it(evaluated: Facts) -> None:
    page = render_report(evaluated)
    part = page[page.index('id="settle"') : page.index("Every comparison that was made")]
    words = text_of(part)
    assert "aime24 · merged − base +5.5 1,840 problems" in words
    assert "more samples of these problems alone would not" in words
    assert "livecodebench · merged − base" not in words  # it is settled


def test_each_problem_stands_in_one_bubble_and_the_counts_agree(evaluated: Facts) -> None:
    page = render_report(evaluated)
    part = page[page.index('id="pairs"') : page.index('id="sampled"')]
    for pairing, figure in zip(evaluated.pairings, part.split("<figure")[1:], strict=True):
        problems = [int(n.replace(",", "")) for n in re.findall(r": ([\d,]+) problems</ti", figure)]
        assert sum(problems) == len(pairing.shares)
        assert f"{pairing.ahead} problem" in figure


def test_teachers_show_cost_share_chosen_and_their_own_scores(evaluated: Facts) -> None:
    words = text_of(render_report(evaluated))
    assert "178.20 USD 0.0270 USD an example aime24 79.8 %" in words
    assert "no price not evaluated" in words
    assert "teach 7 " in words and "211.42 USD" in words


def test_pass_at_k_and_maj_at_k_are_shown_where_there_are_several_samples(
    evaluated: Facts, facts: Facts
) -> None:
    page = render_report(evaluated)
    assert page.count("solid pass@k") == 3  # ifeval was sampled once
    assert "solid pass@k" not in render_report(facts)
    assert "90.4 % [82.4, 97.4]" in text_of(page)


def test_the_card_says_the_same_in_the_hub_s_forms(evaluated: Facts, serving: ServingFacts) -> None:
    card = ModelCard(render_card(evaluated, serving))
    found = {(r.dataset_name, r.metric_type): r for r in card.data.eval_results}
    assert found["aime24", "accuracy"].metric_value == 78.1
    assert found["aime24", "accuracy"].dataset_revision == "5cf4d2c"
    assert found["aime24", "accuracy"].dataset_type == "owner/aime24"
    assert "temperature 0.6, top_p 0.95, at most 32,768" in found["aime24", "accuracy"].metric_name
    assert ("aime24", "pass@64") in found and ("aime24", "maj@64") in found
    assert ("ifeval", "pass@1") not in found
    text = card.content.replace("\u00a0", " ")
    assert "| *aime24* | *FairyR1-32B* | *80.4 %* | PKU-DS-LAB model card (32 samples) |" in text
    assert "| livecodebench | merged model’s gain over the base | +4.4 |" in text
    [config] = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert yaml.safe_load(config)["base_model"] == "./05_specialists/code"


LOOK = """
function look(window, page) {
  const screen = page.documentElement.clientWidth;
  const seen = element => element.getBoundingClientRect();
  const outside = [...page.querySelectorAll("main *, header *")].filter(element =>
    seen(element).width && !element.closest(".scroll *") &&
    (seen(element).right > screen + 0.5 || seen(element).left < -0.5));
  const styles = name => window.getComputedStyle(page.querySelector(name));
  return {
    screen: screen, scroll: page.documentElement.scrollWidth,
    outside: outside.map(element => element.outerHTML.slice(0, 90)).slice(0, 5),
    headline: seen(page.querySelector("h1")).bottom,
    published: styles("tr.published th").fontStyle, own: styles("#scores tbody th").fontStyle,
    squares: new Set([...page.querySelectorAll(".square")].map(s => seen(s).left)).size,
    requests: window.performance.getEntriesByType("resource").length,
  };
}
"""


def test_in_a_browser_all_of_it_fits_a_phone_and_a_desk(browser: Any, evaluated: Facts) -> None:
    found = browser(render_report(evaluated), 360, 390, 850, 1280, look=LOOK)
    assert {width: seen["outside"] for width, seen in found.items() if seen["outside"]} == {}
    assert all(seen["scroll"] <= seen["screen"] for seen in found.values())
    assert found["390"]["headline"] < 800  # the answer stands on the first screen
    assert (found["390"]["published"], found["390"]["own"]) == ("italic", "normal")
    assert (found["390"]["squares"], found["1280"]["squares"]) == (1, 3)
    assert found["1280"]["requests"] == 0
