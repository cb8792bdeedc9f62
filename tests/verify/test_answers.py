import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.verify.answers import choice_letter, code_block, final_answer, split_reasoning


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>r</think>a", ("r", "a")),
        ("<think>\nr\n</think>\n\na\n", ("r", "a")),
        ("r</think>a", ("r", "a")),
        ("<think>r", ("r", "")),
        ("a", ("", "a")),
        ("", ("", "")),
        ("<think>r1</think>b</think>a", ("r1</think>b", "a")),
        ("<think></think>a", ("", "a")),
    ],
)
def test_reply_is_split_at_its_last_closing_tag(text: str, parts: tuple[str, str]) -> None:
    assert split_reasoning(text) == parts


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{41}. Wait, \boxed{42}", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\fbox{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed{7.}", "7"),
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"\boxed{41} then \boxed{4", "41"),
        (r"a stray } and { then \boxed{3}", "3"),
        (r"<think>\boxed{3}</think>I give up.", None),
        (r"<think>\boxed{3}", None),
        (r"\boxed{}", None),
        ("steps\n#### 18", "18"),
        ("#### 17\nno:\n#### 1,018", "1,018"),
        ("The answer is 18.", "18"),
        ("The answer is: **$18$**.", "18"),
        ("The answer is $18.50.", "18.50"),
        (r"The final answer is \(x+1\).", "x+1"),
        ("**Answer:** 18", "18"),
        ("Answer:\n\n**42**", "42"),
        (r"The answer is 4, boxed: \boxed{5}", "5"),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"$x_1=\boxed{1}$, $x_2 = \boxed{2}$", "1, 2"),
        (r"\boxed{42} \boxed{42}", "42"),
        (r"\boxed{41} \boxed{42}", "42"),
        (r"$\boxed 4$", "4"),
        (r"in a \boxed environment", None),
        (r"\\boxed{004}", "004"),
        ("**Final Answer**\n\n42", "42"),
        ("The final answer is:\n\\[\n 9 \n\\]", "9"),
        ("Final Answer: The final answer is $100$. I hope it is correct.", "100"),
        ("The answer is 3.5. So it goes", "3.5"),
        ("The answer is therefore 18", "18"),
        (r"The answer is therefore $\boxed{4", None),
        ("答案是１８。", "１８"),
        ("最终答案：18", "18"),
        ("答案如下", None),
        ("It is hard to say.", None),
        ("", None),
    ],
)
def test_final_answer_is_the_last_stated(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```py\nx = 1\n```\n\nBetter:\n```Python\nx = 2\n```", "x = 2\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\nIt prints:\n```\n1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\n```bash\npip\n```", "x = 1\n"),
        ("1. So:\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("```python\ns = '\u2028'\n```", "s = '\u2028'\n"),
        ("```python\nx = 1", None),
        ("<think>```python\nx = 1\n```</think>none", None),
        ("x = 1", None),
    ],
)
def test_code_is_the_last_closed_python_block(text: str, code: str | None) -> None:
    assert code_block(text) == code


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        r"\boxed{" * 20_000,
        r"\boxed{" * 20_000 + "}" * 20_000,
        r"\boxed{1" * 20_000 + "}" * 20_000,
        "\\" * 100_000,
        "The answer is " + "*" * 100_000,
        "answer" + " " * 100_000,
        "```\n" * 30_000,
        "<think>" * 20_000,
        "answer is \\[" * 10_000,
        "answer:" * 20_000,
        r"\boxed{1}, " * 20_000,
        "答案是" * 50_000,
        "answer\n" + "\n" * 500_000,
        "x" * 50_000_000,
        r"\boxed{1}" + "{}" * 25_000_000,
    ],
    ids=lambda text: f"{text[:12]!r} {len(text)}",
)
def test_hostile_replies_take_linear_time(text: str) -> None:
    begin = time.process_time()
    final_answer(text)
    choice_letter(text)
    if len(text) < 1_000_000:
        code_block(text)
    assert time.process_time() - begin < 4


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    reasoning, answer = split_reasoning(text)
    assert final_answer(text) == final_answer(answer)
    assert code_block(text) == code_block(answer)
    assert reasoning == reasoning.strip()


@given(st.text(alphabet="ab{}$ "))
def test_a_box_gives_back_what_was_put_in(text: str) -> None:
    content = text.replace("{", "(").replace("}", ")").strip()
    assert final_answer(f"so \\boxed{{{content}}} it is") == (content or None)
