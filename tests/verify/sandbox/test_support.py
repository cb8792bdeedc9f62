"""What is said of this machine agrees with what can be done on it."""

import platform

from cuvee.errors import RecipeError
from cuvee.verify import sandbox
from cuvee.verify.sandbox.support import facts


def test_the_facts_agree_with_what_can_be_required() -> None:
    found = facts()
    assert platform.release() in found["system"]
    for kind in sandbox.KINDS:
        try:
            sandbox.require(kind)
        except RecipeError as error:
            assert found[f"sandbox {kind}"] == str(error)
        else:
            assert found[f"sandbox {kind}"] == "yes"
