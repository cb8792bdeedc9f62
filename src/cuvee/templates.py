"""The Jinja environment of all pages and cards: what is missing in one is an error.

A package with a folder `templates` in, an environment out; its filters are the caller's.
"""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment(package: str, *, html: bool) -> Environment:
    """Return the environment of a package's templates; `html` escapes whatever is put in."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
