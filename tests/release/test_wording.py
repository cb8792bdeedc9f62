"""Numbers and comparisons in words: a claim stands only where its interval excludes 0."""

import pytest

from cuvee.records import Comparison, Score
from cuvee.release import wording


def plain(text: str) -> str:
    return text.replace(wording.NBSP, " ")


@pytest.mark.parametrize(
    ("difference", "text"),
    [(0.031, "+3.1"), (-0.125, "−12.5"), (0.0, "0.0"), (-0.0004, "0.0"), (1.0, "+100.0")],
)
def test_points_are_signed_and_zero_has_no_sign(difference: float, text: str) -> None:
    assert wording.points(difference) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (48.4, "48 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"),
     (12000, "3 h 20 min")],
)  # fmt: skip
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert plain(wording.duration(seconds)) == text


def test_an_interval_that_touches_0_proves_nothing() -> None:
    def outcome(low: float, high: float) -> str:
        return wording.outcome(Comparison("merged", "base", "sums", 0.1, low, high, 0.05, 9))

    assert outcome(0.01, 0.2) == "better"
    assert outcome(-0.2, -0.01) == "worse"
    assert outcome(0.0, 0.2) == "unclear"
    assert outcome(-0.2, 0.0) == "unclear"


def test_the_headline_states_gains_the_merge_tax_and_what_is_not_shown(
    score_rows: list[Score], comparison_rows: list[Comparison]
) -> None:
    assert plain(wording.headline(score_rows, comparison_rows)) == (
        "Against the base, each benchmark’s specialist is better on sums (+40.6 points) and "
        "lists (+71.9 points). The merged model, against the base, is better on sums "
        "(+28.1 points) and lists (+68.8 points). The merged model, against the specialists, is "
        "worse on sums (−12.5 points); not shown to differ on lists (−3.1 points, interval "
        "−10.0 to +4.0)."
    )


def test_the_headline_names_a_benchmark_that_could_not_be_compared(
    score_rows: list[Score], comparison_rows: list[Comparison]
) -> None:
    sums = [c for c in comparison_rows if c.benchmark == "sums"]
    assert "not compared on lists" in wording.headline(score_rows, sums)


def test_the_headline_says_what_the_method_is_worth_against_the_mixture(
    score_rows: list[Score],
    comparison_rows: list[Comparison],
    mixture_score_rows: list[Score],
    mixture_comparison_rows: list[Comparison],
) -> None:
    every = [*comparison_rows, *mixture_comparison_rows]
    said = plain(wording.headline([*score_rows, *mixture_score_rows], every))
    assert said.endswith(
        " The merged model, against the mixture (one model trained on all domains), is better on "
        "lists (+12.5 points); not shown to differ on sums (−7.8 points, interval −19.0 to +3.0)."
    )
    found = wording.findings([*score_rows, *mixture_score_rows], every)
    assert [f.outcome for f in found if "mixture" in f.text] == ["unclear", "better"]
    assert plain(found[-1].text) == (
        "lists: the merged model is better than the mixture model: 75.0 % against 62.5 %, "
        "+12.5 points (95 % interval +2.0 to +23.0; 64 problems)."
    )


def test_a_mixture_that_could_not_be_compared_is_named(
    score_rows: list[Score], comparison_rows: list[Comparison], mixture_score_rows: list[Score]
) -> None:
    said = wording.headline([*score_rows, *mixture_score_rows], comparison_rows)
    assert said.endswith("not compared on lists and sums (too much could not be checked).")


def test_without_scores_the_headline_claims_nothing() -> None:
    assert wording.headline([], []).startswith("No benchmark was evaluated")


def test_findings_say_what_the_headline_rests_on_with_both_scores_and_n(
    score_rows: list[Score], comparison_rows: list[Comparison]
) -> None:
    found = wording.findings(score_rows, comparison_rows)
    assert [f.outcome for f in found] == ["better", "better", "worse", "better", "better",
                                          "unclear"]  # fmt: skip
    assert plain(found[2].text) == (
        "sums: the merged model is worse than the math specialist: 31.2 % against 43.8 %, "
        "−12.5 points (95 % interval −22.0 to −3.0; 64 problems)."
    )
    assert "includes 0" in found[5].text


def test_a_score_without_a_headline_shows_both_bounds(score_rows: list[Score]) -> None:
    unsure = next(s for s in score_rows if s.mean is None)
    assert plain(wording.result(unsure)) == "6.2 % to 12.5 % (no headline)"
