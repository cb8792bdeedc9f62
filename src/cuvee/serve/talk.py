"""The loop of `cuvee chat`: lines of a user in, answers out, a few commands between.

On a terminal with a prompt and line editing; from a pipe one question a line. Ctrl-C stops an
answer and not the conversation. Not here: starting what is asked (`cuvee.serve.start`).
"""

import asyncio
import dataclasses
import sys
from collections.abc import Callable, Iterator

from cuvee.errors import TeacherError
from cuvee.serve.chat import Answer, Conversation, Server, ask
from cuvee.serve.screen import Screen

HELP = """\
/reset         forget what was said
/system TEXT   set the system message and forget what was said; without TEXT: none
/quit          end (Ctrl-D too)
/help          this
Ctrl-C stops an answer. A line that begins with // is sent with one slash."""
PROMPT = "> "


@dataclasses.dataclass
class Talk:
    """A conversation and where it is shown."""

    server: Server
    conversation: Conversation
    screen: Screen


def talk(talk: Talk, lines: Iterator[str]) -> int:
    """Answer every line; return how many questions failed.

    A failed question is told and the conversation goes on without it.
    """
    failed = 0
    for line in lines:
        text = line.strip()
        if text in ("/quit", "/exit"):
            break
        if text.startswith("/") and not text.startswith("//"):
            _command(talk, text)
        elif text:
            failed += not _answer(talk, text.removeprefix("/") if text[:2] == "//" else text)
    return failed


def typed(say: Callable[[str], None]) -> Iterator[str]:
    """Yield what a user types; ends at Ctrl-D. Ctrl-C at the prompt empties the line."""
    import readline  # noqa: F401 - line editing and history of `input`

    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            say("")
            return
        except KeyboardInterrupt:
            say("\n/quit or Ctrl-D ends")


def piped() -> Iterator[str]:
    """Yield the lines of a pipe; bytes that are no UTF-8 become U+FFFD."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace")


def _command(talk: Talk, text: str) -> None:
    word, _, rest = text.partition(" ")
    if word == "/reset":
        talk.conversation.turns.clear()
        talk.screen.say("forgotten")
    elif word == "/system":
        talk.conversation.system = rest.strip() or None
        talk.conversation.turns.clear()
        talk.screen.say("system message set" if rest.strip() else "no system message")
    elif word == "/help":
        talk.screen.say(HELP)
    else:
        talk.screen.say(f"{word}: no such command; /help lists them")


def _answer(talk: Talk, question: str) -> bool:
    """Ask, show and remember; return whether it was answered, stopped by the user included."""
    answer, note = Answer(), ""
    messages = talk.conversation.messages(question)
    try:
        asyncio.run(ask(talk.server, messages, answer=answer, show=talk.screen.show))
    except KeyboardInterrupt:
        note = "stopped"
    except TeacherError as error:
        talk.screen.end(answer, note="failed")
        talk.screen.say(f"error: {error}")
        return False
    kept = talk.conversation.remember(question, answer)
    if not kept:
        note = ", ".join([*([note] if note else []), "no answer: the question is forgotten"])
    talk.screen.end(answer, note=note)
    return True
