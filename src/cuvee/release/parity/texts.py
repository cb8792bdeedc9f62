"""The texts and conversations on which a file's tokenizer and template are compared.

Chosen for what tokenizers and templates get wrong: scripts without spaces, joined emoji,
white space of every kind, digits, control tokens written in a text, long words, combining
marks. Not here: the text that predictions are compared on (`cuvee.release.parity.text`).
"""

from cuvee.models.rendering import Turn

TEXTS = (
    "",
    " ",
    "\n",
    "What is 12 + 345?  And 6,7?\n\n\tThen?",
    "I'll, we've, THEY'RE, don't; “curly” ‘quotes’ — and… dots",
    "证明：若 a² + b² = c²，则……",
    "中文没有空格，全角符号：（一）、２０２６年，漢字。",
    "吾輩は猫である。名前はまだ無い。カタカナｶﾀｶﾅ、ー",
    "السَّلامُ عليكم، ١٢٣ و ۴۵۶",
    "שלום עולם",
    "สวัสดีชาวโลก नमस्ते 안녕하세요 Привет Γειά",
    "🍷👩‍👩‍👧‍👦🏳️‍🌈👍🏽 ☃️ \U0001f9d1\u200d\U0001f4bb",
    "cafe\u0301 nai\u0308ve a\u0300\u0301\u0302 \u1100\u1161 é ï",
    "\u200b\ufeff\u00a0\u3000\u2028 zero and wide",
    "0 1 12 123 1234 12345 123456 1234567890 3.14159 1e-10 0xFF 1,000,000",
    "def f(xs):\r\n\treturn [x**2 for x in xs if x >= 10]  # don't\r\n\r\n",
    "\t\tif (a && b) {\n\t\t    c  =  d;\t\n\n\n\n        }\n   \n\t\n",
    "   leading,   trailing   \n \n  ",
    "https://example.org/a_b-c/?q=1&r=%20x#top user.name+tag@mail.example.org",
    "C:\\Users\\x $HOME/.cache `ls -la | grep '^d'` && echo \"done\"",
    "\\boxed{\\frac{1}{2}} $$x_1^{2} \\le \\sum_{i=0}^{n} i$$ \\[ \\alpha \\]",
    "Donaudampfschifffahrtsgesellschaftskapitän pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 300,
    "=" * 80 + "\n" + "-" * 81 + "\n" + "#" * 7,
    "camelCaseAndPascalCase snake_case_name SCREAMING_CASE x1y2z3",
    "<think>\nso it is\n</think>\n\nthe answer<think></think>",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<|endoftext|>",
    "<｜User｜>hi<｜Assistant｜><｜end▁of▁sentence｜> <s> </s> [INST] [/INST] <|eot_id|>",
    "<tool_call>{\"a\": [1, null, true]}</tool_call> &amp; <b>bold</b> <!-- no -->",
    "{{ messages }} {% raw %} {# no #} '\"\\",
)  # fmt: skip

_REASONED = "<think>\nbecause\n</think>\n\n4"


def _turns(*contents: str, system: str | None = None) -> tuple[Turn, ...]:
    """Return a conversation of question, reply, question, ..."""
    roles = ("user", "assistant")
    said = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return (*([] if system is None else [{"role": "system", "content": system}]), *said)


CHATS = (
    _turns("What is 2+2?"),
    _turns(""),
    _turns("证明：若 a² + b² = c²，则……"),
    _turns(" \n both ends \t\n\n "),
    _turns("def f(xs):\r\n\treturn xs  # don't\n", "ok", "{{ messages }} {% raw %} {# no #}"),
    _turns("🍷👩‍👩‍👧 “quotes” \\boxed{\\frac{1}{2}}", "plain", "and?", "more", "last"),
    _turns("q", _REASONED, "and?"),
    _turns("q", _REASONED.removeprefix("<think>\n"), "and?"),
    _turns("end<|im_end|>\n<|im_start|>assistant\n<think>\nfaked", "", "<think> </think>"),
    _turns("q", system="Be brief."),
    _turns("q", "a", "again", system=" \n 简短 🍷 \n"),
    _turns("q", system=""),
)
"""Each ends with a question; some templates refuse a system message."""
