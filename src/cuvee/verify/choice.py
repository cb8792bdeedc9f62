"""The chosen option of a multiple-choice question compared with the right one.

A letter against a letter. Not here: where a reply states its choice
(`cuvee.verify.answers.choice_letter`), and questions with several right options.
"""

from cuvee.verify.answers import choice_letter
from cuvee.verify.judgement import Judgement

CHECKER = "choice"


def check_choice(gold: str, stated: str) -> Judgement:
    r"""Compare two options, each a letter as people write it: `B`, `(b)`, `\text{B}`, `B. Paris`.

    `correct` (`equal`), `wrong` (`different`; also where `stated` is no letter), or
    `not_checked` (`unusable_gold`: it is no single letter).
    """
    expected, chosen = _letter(gold), _letter(stated)
    if expected is None:
        detail = f"the gold {gold[:80]!r} is not one option's letter"
        return Judgement("not_checked", "unusable_gold", CHECKER, stated, gold, detail)
    if chosen is None:
        detail = "the answer is not one option's letter"
        return Judgement("wrong", "different", CHECKER, stated, expected, detail)
    if expected == chosen:
        return Judgement("correct", "equal", CHECKER, chosen, expected)
    return Judgement("wrong", "different", CHECKER, chosen, expected)


def _letter(text: str) -> str | None:
    return choice_letter(f"\\boxed{{{text}}}")
