"""The sampling to serve a model with: what its scores were taken with.

Scores in, `Recommended` of `cuvee.serve` out. Not here: what a checkpoint recommends by itself.
"""

import json
from collections.abc import Iterable

from cuvee.records import Score
from cuvee.serve.facts import Recommended


def recommended(scores: Iterable[Score]) -> Recommended | None:
    """Return the sampling that all scores of the merged model share; None where they do not.

    Only that one is known to give the scores of the card. Greedy sampling is a protocol like
    any other.
    """
    found = set()
    for score in scores:
        if score.model == "merged":
            sampling = json.loads(score.protocol).get("sampling", {})
            found.add((sampling.get("temperature"), sampling.get("top_p")))
    if len(found) != 1:
        return None
    [(temperature, top_p)] = found
    if temperature is None or top_p is None:  # a protocol of another version
        return None
    return Recommended(temperature, top_p, source="the protocol of the evaluation")
