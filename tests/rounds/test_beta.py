"""The beta-binomial of asking again: values by hand, scipy as a peer, what must hold."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import beta as beta_distribution
from scipy.stats import betabinom, binom

from cuvee.rounds.beta import ADDED, Beta, expected_new, fit_beta

UNIFORM = Beta(1, 1)
NUMBERS = st.floats(0.01, 50)


def test_one_place_is_the_chance_of_at_least_one() -> None:
    # After 0 of 2 a uniform prior is Beta(1, 3): no answer of two more is fit with
    # B(1, 5) / B(1, 3) = (1/5) / (1/3) = 3/5.
    assert expected_new(UNIFORM, right=0, tried=2, more=2, places=1) == pytest.approx(2 / 5)


def test_as_many_places_as_answers_is_their_number_times_the_mean() -> None:
    # Beta(2, 3) after 1 of 3: each answer is fit with 2/5.
    assert expected_new(UNIFORM, right=1, tried=3, more=3, places=3) == pytest.approx(6 / 5)
    assert expected_new(UNIFORM, right=1, tried=3, more=3, places=9) == pytest.approx(6 / 5)


def test_what_nobody_answered_goes_by_the_domain() -> None:
    assert expected_new(Beta(1, 3), right=0, tried=0, more=1, places=1) == pytest.approx(1 / 4)


@given(a=NUMBERS, b=NUMBERS, tried=st.integers(0, 20), more=st.integers(1, 30), data=st.data())
@settings(max_examples=60, deadline=None)
def test_it_is_the_mean_of_scipys_beta_binomial_cut_at_the_places(
    a: float, b: float, tried: int, more: int, data: st.DataObject
) -> None:
    right = data.draw(st.integers(0, tried))
    places = data.draw(st.integers(1, 10))
    masses = betabinom(more, a + right, b + tried - right).pmf(range(more + 1))
    wanted = sum(min(k, places) * mass for k, mass in enumerate(masses))
    found = expected_new(Beta(a, b), right=right, tried=tried, more=more, places=places)
    assert found == pytest.approx(wanted, rel=1e-7, abs=1e-9)
    assert 0 <= found <= min(more, places)


def test_each_failure_lowers_and_each_place_and_answer_raises_what_is_expected() -> None:
    def after(tried: int, more: int = 4, places: int = 2) -> float:
        return expected_new(Beta(0.5, 1.5), right=0, tried=tried, more=more, places=places)

    assert after(0) > after(1) > after(8) > after(64) > 0
    assert after(2, places=1) < after(2, places=2) < after(2, places=4)
    assert after(2, more=1) < after(2, more=2) < after(2, more=16)


def test_the_fit_is_the_likeliest_that_scipy_finds() -> None:
    counts = {(0, 4): 60, (1, 4): 15, (2, 4): 9, (3, 4): 7, (4, 4): 9, (2, 12): 5, (0, 12): 20}
    together: Counter[tuple[int, int]] = Counter(ADDED)
    together.update(counts)

    def against(logs: list[float]) -> float:
        a, b = (2.718281828459045**x for x in logs)
        return -float(sum(m * betabinom.logpmf(k, n, a, b) for (k, n), m in together.items()))

    best = minimize(against, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9})
    a, b = (2.718281828459045**x for x in best.x)
    fitted = fit_beta(counts)
    assert fitted.a == pytest.approx(a, rel=1e-4)
    assert fitted.b == pytest.approx(b, rel=1e-4)


def test_the_fit_finds_what_the_problems_were_drawn_from() -> None:
    shares = beta_distribution(0.5, 1.5).rvs(4000, random_state=1)
    fitted = fit_beta(Counter((int(k), 4) for k in binom(4, shares).rvs(random_state=2)))
    assert fitted.a == pytest.approx(0.5, rel=0.15)
    assert fitted.b == pytest.approx(1.5, rel=0.15)


def test_asking_on_where_it_failed_does_not_mislead_the_fit() -> None:
    """Problems with none right of 2 are asked 8 times more: the plan of rounds."""
    shares = beta_distribution(0.5, 1.5).rvs(6000, random_state=3)
    first = binom(2, shares).rvs(random_state=4)
    more = binom(8, shares).rvs(random_state=5)
    counts = Counter(
        (int(k), 2) if k else (int(further), 10) for k, further in zip(first, more, strict=True)
    )
    assert fit_beta(counts).mean == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("counts", [{}, {(0, 1): 50, (1, 1): 50}])
def test_where_counts_do_not_say_how_much_problems_differ_the_fit_is_uniform(
    counts: dict[tuple[int, int], int],
) -> None:
    fitted = fit_beta(counts)
    assert (fitted.a, fitted.b) == pytest.approx((1, 1))


def test_where_nothing_was_right_little_is_expected_and_where_all_was_much() -> None:
    none, every = fit_beta({(0, 8): 500}), fit_beta({(8, 8): 500})
    assert 0 < none.mean < 0.01
    assert 0.99 < every.mean < 1
    assert expected_new(none, right=0, tried=8, more=8, places=1) < 0.01
