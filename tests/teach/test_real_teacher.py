"""A real language model as a teacher: SmolLM2 from its GGUF file, served by llama.cpp."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from cuvee.recipe import Serve, Teacher, parse_recipe
from cuvee.recipe.serving import Sampling
from cuvee.runfolder import Run
from cuvee.teach.client import Books, Request, ask
from cuvee.teach.endpoints import find_teacher
from cuvee.teach.ledger import Ledger

GGUF = Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GGUF.exists(), reason="run recipes/fetch_demo_base.py first"),
]


def test_served_gguf_teaches_and_a_second_time_comes_from_the_ledger(tmp_path: Path) -> None:
    teacher = Teacher(
        name="smol",
        serve=Serve(model=str(GGUF), slots=2, context=256),
        sampling=Sampling(temperature=0.0, max_tokens=24),
    )
    recipe = parse_recipe(
        {
            "name": "real",
            "base": "random:two-layer",
            "domains": {"m": {"verifier": "none", "problems": [{"source": "x.jsonl"}]}},
            "teachers": [teacher.model_dump()],
        },
        where="test",
    )
    questions = ["What is the capital of France?", "What colour is the sky on a clear day?"]
    requests = [Request(f"p{i}", "m", 0, text, seed=i) for i, text in enumerate(questions)]
    with ExitStack() as resources, Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        found = find_teacher(teacher, run=Run(tmp_path, recipe))
        answers = ask(
            found.start(resources), requests, sampling=teacher.sampling, books=Books(ledger)
        )
        first = list(answers)
        # A second time it need not even run.
        held = ask(found.endpoint, requests, sampling=teacher.sampling, books=Books(ledger))
        again = list(held)
        usage, usage_again = answers.usage(), held.usage()
    # Not the capital: in 4 bits this model no longer knows it (in F16 it does).
    assert "blue" in first[1].answer.lower()
    assert (usage.sent, usage_again.sent, usage_again.from_ledger) == (2, 0, 2)
    assert again == first
