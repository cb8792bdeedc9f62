"""Keys in a text that is about to become public are found, named by place, and never shown."""

import pytest

from cuvee.errors import DataError
from cuvee.release.secrets import require_none

KEY = "c0ffee-c0ffee-c0ffee"


def test_the_value_of_a_variable_named_like_a_key_is_found_and_not_shown() -> None:
    with pytest.raises(DataError) as caught:
        require_none("recipe.yaml", f"a: 1\nb: {KEY}\n", environment={"MY_API_KEY": KEY})
    assert "recipe.yaml, line 2: holds the value of the variable MY_API_KEY" in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["token: hf_" + "a1B2" * 8, "key: sk-" + "a1B2" * 8, "url: https://me:pass@host/v1",
     "url: https://host/v1?api_key=abc", "url: https://host/v1?a=1&token=abc"],
)  # fmt: skip
def test_what_looks_like_a_key_is_found(text: str) -> None:
    with pytest.raises(DataError, match="line 1: holds"):
        require_none("recipe.yaml", text, environment={})


@pytest.mark.parametrize(
    "text",
    ["key_env: OPENAI_API_KEY", "url: http://127.0.0.1:8095/v1", "task-sk-learn", "hf_home: x",
     "url: https://host/v1?page=2", "mail: https://host/a:b@c"],
)  # fmt: skip
def test_names_of_variables_and_plain_addresses_are_none(text: str) -> None:
    require_none("recipe.yaml", text, environment={"HOME": "v1", "A_KEY": "1", "B_TOKEN": "url"})
