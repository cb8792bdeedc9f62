"""What tokens cost by a recipe's prices, as the teach stage counts them; and who has a price."""

import ipaddress
from urllib.parse import urlsplit

from cuvee.plan.figures import NOTHING, Figure
from cuvee.recipe import Prices, Teacher
from cuvee.teach.request import MILLION, cost_of


def usd_of(teacher: Teacher, prompts: Figure, answers: Figure) -> Figure | None:
    """Return what a teacher's tokens cost; None where the recipe has no price for them."""
    prices = teacher.usd_per_mtok
    if prices is None:
        return NOTHING if is_priced(teacher) else None
    return prompts.scaled(_rate(prices, 1, 0)) + answers.scaled(_rate(prices, 0, 1))


def is_priced(teacher: Teacher) -> bool:
    """Return whether it is known what a teacher costs: by its price, or because it is ours."""
    if teacher.url is None or teacher.usd_per_mtok is not None:
        return True
    host = urlsplit(teacher.url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _rate(prices: Prices, prompt: int, answer: int) -> float:
    """Return dollars a token, as the teach stage counts."""
    million = int(MILLION)
    return cost_of(
        prices, prompt_tokens=prompt * million, completion_tokens=answer * million
    ).usd / million  # fmt: skip
