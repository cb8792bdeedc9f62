"""The data card: Markdown with the front matter that the Hugging Face hub reads of a data set.

Facts in, text out: sources with revision and licence, teachers and their terms, the funnel,
sizes, how the set was made, limits. What is unknown is said to be unknown and never guessed; a
data set made of such parts has `license: unknown`. Every text that comes from a recipe or a file
is escaped, so that it can neither leave its table cell nor become a link or HTML.
"""

import re
from typing import Any

import yaml

from cuvee import __version__
from cuvee.lineage.card_facts import CardFacts
from cuvee.lineage.sources import UNKNOWN, revision_text
from cuvee.lineage.text import one_line
from cuvee.problems.files import is_file
from cuvee.recipe import Domain
from cuvee.templates import environment

SIZES = (
    (10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"), (10**8, "10M<n<100M"),
)  # fmt: skip
"""The hub's names for sizes, each with the count it ends below."""

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~!&])")


def render_data_card(facts: CardFacts) -> str:
    """Return the training set's card as Markdown with YAML front matter."""
    templates = environment("cuvee.lineage", html=False)
    templates.filters.update(plain=plain, word=word, count=_count, revision=revision_text)
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=False)
    return templates.get_template("data_card.md.j2").render(
        front=front,
        facts=facts,
        recipe=facts.recipe,
        version=__version__,
        warnings=warnings(facts),
        changed=changed_settings,
        unknown=UNKNOWN,
    )


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """Return the front matter: what the hub shows, filters by and loads.

    `license` is `unknown` where the licence of a source or the terms of a teacher are; it is
    left out where all are stated, since what follows from them is not for a tool to say.
    """
    front: dict[str, Any] = {"pretty_name": facts.recipe.name}
    if facts.unlicensed or facts.without_terms:
        front["license"] = UNKNOWN
    languages = {domain.domain.select.language for domain in facts.domains}
    if "any" not in languages:
        front["language"] = sorted(languages)
    front["task_categories"] = ["text-generation"]
    front["tags"] = ["cuvee", "distillation", "reasoning", "synthetic"]
    front["size_categories"] = [size_category(facts.examples)]
    named = [source.source for domain in facts.domains for source in domain.sources]
    if hub := [name for name in dict.fromkeys(named) if is_hub_set(name)]:
        front["source_datasets"] = hub
    front["configs"] = [
        {"config_name": domain.name, "data_files": f"{domain.name}.parquet"}
        for domain in facts.domains
    ]
    return front


def size_category(examples: int) -> str:
    """Return the hub's name for a number of examples."""
    return next((name for end, name in SIZES if examples < end), "100M<n<1B")


def is_hub_set(source: str) -> bool:
    """Return whether a source is a hub id: neither a file nor a generator."""
    return ":" not in source and not is_file(source)


def warnings(facts: CardFacts) -> list[str]:
    """Return what whoever publishes or trains on the set must know first, as Markdown."""
    found = []
    if facts.unlicensed:
        names = ", ".join(plain(name) for name in facts.unlicensed)
        found.append(f"The licence of these sources is unknown: {names}.")
    if facts.without_terms:
        names = ", ".join(plain(name) for name in facts.without_terms)
        found.append(
            f"No terms are stated for these teachers: {names}. Whether their answers may be "
            "trained on, or published, is unknown."
        )
    unrecorded = [s.source for d in facts.domains for s in d.sources if not s.recorded]
    if unrecorded:
        names = ", ".join(plain(name) for name in dict.fromkeys(unrecorded))
        found.append(f"What was read of these sources was not recorded: {names}.")
    for domain in facts.domains:
        if domain.unaccounted:
            found.append(
                f"{_count(domain.unaccounted)} traces of {plain(domain.name)} are neither chosen "
                "nor dropped: the run folder is of several runs; run `cuvee run` again."
            )
    return found


def changed_settings(domain: Domain) -> str:
    """Return the settings of a domain's `select` that are not the defaults, as Markdown."""
    values = domain.select.model_dump(mode="json", exclude_defaults=True)
    return ", ".join(word(f"{name}: {value}") for name, value in values.items()) or "the defaults"


def plain(text: str) -> str:
    """Return text as one line of Markdown that shows it as it is."""
    return _MARKUP.sub(r"\\\1", one_line(text))


def word(text: str) -> str:
    """Return text as a code span on one line, also within a table; `plain` where that cannot be."""
    line = one_line(text)
    if "`" in line or not line.strip():
        return plain(text)
    return f"`{line}`".replace("|", "\\|")


def _count(number: int) -> str:
    return f"{number:,}"
