"""Looks for keys in a text that is about to become public.

A text and the environment's variables in, DataError out where one is found: its place is named,
the key never. Not here: which texts become public (`cuvee.release.parcel`).
"""

import re
from collections.abc import Mapping

from cuvee.errors import DataError

SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)S?$", re.IGNORECASE)
SHORTEST = 8
"""Characters: a shorter value (`1`, `none`) is no key and stands in any text."""
FORMS = {
    "a token of the Hugging Face hub": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "a URL with a password": re.compile(r"\bhttps?://[^/\s:@\"']+:[^/\s@\"']+@"),
    "a URL with a key": re.compile(
        r"\bhttps?://[^\s\"']*[?&](?:api[_-]?key|key|token|access_token)=[^\s&\"']", re.IGNORECASE
    ),
}
"""What -> how it looks."""


def require_none(path: str, text: str, *, environment: Mapping[str, str]) -> None:
    """Raise DataError, naming `path` and line, where a text holds a key.

    That is the value of an environment variable named like one, or what looks like one. A key
    that is neither is not found.
    """
    for name, value in environment.items():
        if SECRET_NAME.search(name) and len(value) >= SHORTEST and value in text:
            _refuse(path, text, text.index(value), f"the value of the variable {name}")
    for what, form in FORMS.items():
        if match := form.search(text):
            _refuse(path, text, match.start(), what)


def _refuse(path: str, text: str, place: int, what: str) -> None:
    line = text.count("\n", 0, place) + 1
    raise DataError(
        f"{path}, line {line}: holds {what}; nothing was uploaded. Take it out of the recipe "
        "(`key_env` names a variable) and release again"
    )
