"""The budget: a hard stop, what is in flight included; clean, and raised it goes on."""

import asyncio
import dataclasses

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import BudgetError
from cuvee.recipe import Budget, Prices
from cuvee.teach.client import Books, ask
from cuvee.teach.ledger import Ledger
from cuvee.teach.request import TEMPLATE_TOKENS, cost_of, question

from .conftest import SAMPLING, Body, Serve, answer_well, completion, endpoint, requests, send

PRICES = Prices(input=1.0, output=10.0)


async def slowly(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
    await asyncio.sleep(0.02)
    return await answer_well(request, body, tries)


# What requests cost


def test_a_cost_is_tokens_times_their_price_by_the_million() -> None:
    cost = cost_of(Prices(input=0.55, output=2.19), prompt_tokens=1000, completion_tokens=2000)
    assert cost.usd == pytest.approx(0.00055 + 0.00438)
    assert cost_of(None, prompt_tokens=10**6, completion_tokens=10**6).usd == 0


@given(st.text(max_size=50), st.text(max_size=50) | st.none())
def test_a_request_reserves_its_bytes_and_max_tokens(prompt: str, system: str | None) -> None:
    to = endpoint("http://x/v1", system=system, prices=PRICES)
    asked = question(to, dataclasses.replace(requests(1)[0], prompt=prompt), SAMPLING)
    size = len(prompt.encode("utf-8", "replace")) + len((system or "").encode("utf-8", "replace"))
    assert asked.reserved.prompt_tokens == size + TEMPLATE_TOKENS
    assert asked.reserved.completion_tokens == 64
    assert asked.reserved.usd == pytest.approx((size + TEMPLATE_TOKENS + 640) / 1e6)


def test_every_trace_says_what_it_cost_and_the_usage_what_all_did(
    serve: Serve, ledger: Ledger
) -> None:
    to = endpoint(serve(slowly).url, prices=PRICES)
    traces, usage = send(to, requests(5), ledger)
    assert [trace.usd for trace in traces] == [pytest.approx(11e-6 + 220e-6)] * 5
    assert usage.usd == pytest.approx(5 * 231e-6)
    _, again = send(to, requests(5), ledger)
    assert (again.sent, again.usd) == (0, usage.usd)
    assert ledger.spent("run 1").total.usd == pytest.approx(5 * 231e-6), "bought once"
    _, unpriced = send(dataclasses.replace(to, prices=None), requests(5), ledger)
    assert unpriced.usd is None


def test_tokens_that_no_server_can_mean_are_not_counted(serve: Serve, ledger: Ledger) -> None:
    async def mad(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        usage = {"prompt_tokens": -5, "completion_tokens": 10**30}
        return web.json_response(completion("x") | {"usage": usage})

    to = endpoint(serve(mad).url, prices=PRICES)
    traces, _ = send(to, requests(2), ledger)
    assert (traces[0].prompt_tokens, traces[0].completion_tokens, traces[0].usd) == (None,) * 3
    reserved = question(to, requests(1)[0], SAMPLING).reserved
    assert ledger.spent("run 1").total.tokens == 2 * reserved.tokens, "counted at what was reserved"


# The stop


def reserved_tokens() -> int:
    return question(endpoint("http://x/v1"), requests(1)[0], SAMPLING).reserved.tokens


@pytest.mark.parametrize(
    ("budget", "answered"),
    [
        (Budget(requests=7), 7),
        # What is in doubt counts at its reservation, what came at its 33 tokens.
        (Budget(tokens=500), (500 - reserved_tokens()) // 33 + 1),
        (Budget(usd=0.003), 10),
    ],
    ids=lambda value: str(value),
)
def test_the_stop_is_hard_clean_and_raised_it_goes_on(
    serve: Serve, ledger: Ledger, budget: Budget, answered: int
) -> None:
    server = serve(slowly)
    to = endpoint(server.url, prices=PRICES)
    with pytest.raises(BudgetError) as caught:
        send(to, requests(40), ledger, budget=budget)
    total = ledger.spent("run 1").total
    assert total.usd <= (budget.usd or 1)
    assert total.tokens <= (budget.tokens or 10**9)
    assert total.requests <= (budget.requests or 10**9)
    assert ledger.count_answers() == len(server.bodies) == total.answers
    assert abs(total.answers - answered) <= 1
    assert total.in_doubt == 0, "what was in flight came in"
    assert caught.value.exit_code == 3
    [limit] = [name for name, value in budget.model_dump().items() if value is not None]
    assert f"raise budget.{limit}" in str(caught.value)
    _, usage = send(to, requests(40), ledger, budget=Budget(requests=40))
    assert (usage.sent, usage.from_ledger) == (40 - total.answers, total.answers)
    assert len(server.bodies) == 40


def test_a_budget_spent_needs_no_server_to_say_so(ledger: Ledger, serve: Serve) -> None:
    server = serve(answer_well)
    send(endpoint(server.url), requests(3), ledger, budget=Budget(requests=3))
    with pytest.raises(BudgetError, match=r"budget\.requests is 3, 3 of it is used"):
        send(endpoint(server.url), requests(4), ledger, budget=Budget(requests=3))
    assert len(server.bodies) == 3
    _, usage = send(endpoint(server.url), requests(3), ledger, budget=Budget(requests=3))
    assert (usage.sent, usage.from_ledger) == (0, 3), "what the ledger holds costs nothing"


def test_near_its_end_the_budget_lowers_how_many_are_in_flight_and_is_used_up(
    serve: Serve, ledger: Ledger
) -> None:
    """Reservations are worst cases: what comes in makes room for more."""
    server = serve(slowly)
    tokens = 3 * reserved_tokens()
    with pytest.raises(BudgetError):
        send(
            endpoint(server.url, concurrency=32),
            requests(200),
            ledger,
            budget=Budget(tokens=tokens),
        )
    assert server.most_in_flight <= 3
    spent = ledger.spent("run 1").total.tokens
    assert tokens - reserved_tokens() < spent <= tokens


def test_what_may_have_been_billed_counts(serve: Serve, ledger: Ledger) -> None:
    async def lost(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server = serve(lost)
    with pytest.raises(BudgetError, match="5 requests in flight or in doubt"):
        send(endpoint(server.url, retries=9), requests(5), ledger, budget=Budget(requests=5))
    assert len(server.bodies) == 5
    assert ledger.spent("run 1").total.in_doubt == 5


def test_what_was_refused_does_not(serve: Serve, ledger: Ledger) -> None:
    async def refuse(request: web.Request, body: Body, tries: int) -> web.StreamResponse:
        return web.Response(status=429 if tries == 1 else 400)

    _, usage = send(endpoint(serve(refuse).url), requests(9), ledger, budget=Budget(requests=4))
    assert (usage.sent, usage.refused) == (9, 9)
    assert ledger.spent("run 1").total.requests == 0


def test_accounts_are_apart(serve: Serve, ledger: Ledger) -> None:
    server = serve(answer_well)
    for number, account in enumerate(("a", "b")):
        to = endpoint(server.url, identity=account)
        books = Books(ledger, account, Budget(requests=4))
        assert len(list(ask(to, requests(4), sampling=SAMPLING, books=books))) == 4
        assert len(server.bodies) == 4 * (number + 1)


def test_a_million_queued_requests_stop_at_the_budget_all_the_same(
    serve: Serve, ledger: Ledger
) -> None:
    class Many:
        def __len__(self) -> int:
            return 1_000_000

        def __iter__(self):  # type: ignore[no-untyped-def]
            one = requests(1)[0]
            return (dataclasses.replace(one, prompt=str(n), seed=n) for n in range(1_000_000))

    server = serve(answer_well)
    with pytest.raises(BudgetError):
        ask(
            endpoint(server.url, concurrency=32),
            Many(),
            sampling=SAMPLING,
            books=Books(ledger, "run 1", Budget(requests=50)),
        )
    assert len(server.bodies) == 50
