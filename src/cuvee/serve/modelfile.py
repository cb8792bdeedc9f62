"""An Ollama Modelfile for a released GGUF file: template, stop words, sampling, context.

Facts in, text out. The text follows Ollama's reader of Modelfiles (its parser/parser.go) and
was never run: no Ollama is installed where cuvee is tested. What is tested is that a reader
written from it gets back what was meant, and that the Go template renders the bytes of the
model's own (`cuvee.serve.go_template`).
"""

import dataclasses

from cuvee.errors import DataError
from cuvee.serve.facts import ServingFacts
from cuvee.serve.go_template import go_template, trims

UNTESTED = "Written for Ollama and not run with it: compare an answer or two with llama.cpp's."


@dataclasses.dataclass(frozen=True)
class Modelfile:
    """The text of a Modelfile, and what its reader should know."""

    text: str
    has_template: bool
    """Whether it holds a TEMPLATE that renders as the model's own does."""
    warnings: tuple[str, ...]
    """For people: what was not run, or could not be written."""


def modelfile(gguf_name: str, *, facts: ServingFacts, context: int | None = None) -> Modelfile:
    """Return the Modelfile of a GGUF file that stands beside it.

    `context` is what Ollama reserves, in tokens; None: the model's own. Raises DataError for
    a name or stop word that no Modelfile can hold.
    """
    template, warnings = _template(facts)
    lines = [f"# {text}" for text in warnings]
    lines.append(f"FROM ./{_plain(gguf_name)}")
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    lines += [f"PARAMETER stop {_quoted(word)}" for word in facts.stop]
    lines += [f"PARAMETER {name} {value:g}" for name, value in _numbers(facts)]
    lines.append(f"PARAMETER num_ctx {context or facts.context}")
    return Modelfile("\n".join(lines) + "\n", template is not None, warnings)


def _template(facts: ServingFacts) -> tuple[str | None, tuple[str, ...]]:
    try:
        template = go_template(facts)
    except DataError as error:
        missing = (
            f"No TEMPLATE: {' '.join(str(error).split())}. Ollama then takes the GGUF file's own "
            "template: new versions run it, older ones guess a similar one."
        )
        return None, (UNTESTED, missing)
    if not trims(facts):
        return template, (UNTESTED,)
    blanks = "The model's template takes blanks off a message's ends; Ollama's cannot."
    return template, (UNTESTED, blanks)


def _numbers(facts: ServingFacts) -> list[tuple[str, float]]:
    # Ollama's default penalises repetition, which neither evaluation nor other engines do.
    return [*facts.sampling.request.items(), ("repeat_penalty", 1.0)]


def _plain(name: str) -> str:
    """Return a file's name; raise DataError for one that no FROM line can hold."""
    if not name or not name.isprintable() or "/" in name or '"' in name or name != name.strip():
        raise DataError(f"{name!r}: no name of a file that a Modelfile can hold")
    return name


def _quoted(word: str) -> str:
    """Return a stop word as the reader unquotes it; it knows no escapes."""
    if '"' in word or not all(c.isprintable() or c in "\n\t" for c in word):
        raise DataError(f"stop word {word!r}: a Modelfile cannot hold it")
    return f'"{word}"'
