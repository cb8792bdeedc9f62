"""Uploads a parcel to the Hugging Face hub: one commit, so that no half of it is ever seen.

Through `huggingface_hub`, which sends large files first, in pieces that are kept: the same push
after an interruption sends what is missing. The token is the library's (HF_TOKEN or
`hf auth login`) and is never read, written or printed here. Not here: what is uploaded
(`cuvee.release.parcel`).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from cuvee import __version__
from cuvee.errors import CuveeError, RecipeError
from cuvee.release.parcel import Parcel


def require_token(to: str) -> None:
    """Raise RecipeError where the library has no token to write to `to` with."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise RecipeError(
            f"--push {to}: there is no token for the hub: set HF_TOKEN to one with write access, "
            "or log in with `hf auth login`"
        )


def push(parcel: Parcel, *, to: str, private: bool) -> str:
    """Upload a parcel to the model repository `to` (made where it is not there); return its URL.

    Files of the same path are replaced, others stay. `private` asks for a private repository:
    one that is public already is refused before anything is sent. Raises RecipeError without
    a token, CuveeError with what the hub said.
    """
    require_token(to)
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="cuvee", library_version=__version__)
    with _explained(to):
        api.create_repo(to, private=True if private else None, exist_ok=True)
        if private and not api.model_info(to).private:
            raise RecipeError(f"--private: {to} exists and is public; make it private there first")
        operations = [
            CommitOperationAdd(
                upload.path, upload.source if upload.text is None else upload.text.encode()
            )
            for upload in parcel.uploads
        ]
        commit = api.create_commit(
            to, operations, commit_message=f"{parcel.run.recipe.name}, by cuvee {__version__}"
        )
    return str(commit.commit_url)


@contextmanager
def _explained(to: str) -> Iterator[None]:
    """Turn what the hub and the network say into a CuveeError; warnings are the card's."""
    from huggingface_hub.utils import httpx

    from cuvee.progress import warn

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        raise CuveeError(
            f"{to}: not pushed: {error}. What was sent is kept there: the same command sends the "
            "rest. A token needs write access to that name"
        ) from error
    for warning in caught:
        warn(f"the hub on the card: {warning.message}")
