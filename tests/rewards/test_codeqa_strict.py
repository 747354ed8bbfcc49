"""CodeQA, strict: every usual form of an answer is read, and nothing that names two choices or none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_rewards import codeqa

# Each states B.
FORMS = [
    "B",
    "(B)",
    "[B]",
    "B.",
    "**B**",
    "`B`",
    '"B"',
    "$B$",
    "B)",
    "B) It returns None",
    "(B) It returns None",
    "B. It returns None",
    "B: It returns None",
    "B - It returns None",
    "**B)** It returns None",
    "**B. It returns None**",
    "B) A function that returns None",
    "Option B",
    "option (B)",
    "Choice B.",
    "Option B: it returns None",
    "Answer: B",
    "ANSWER: B",
    "answer: (B)",
    "Answer - B",
    "Answer = B",
    "Answer -> B",
    "Answer:B",
    "Answer (B)",
    "Final answer: **B**",
    "**Final Answer**: B",
    "final_answer: B",
    "Answer:\nB",
    "Answer:\n\n(B)",
    "**Answer:**\n\n**B**",
    "### Answer\n\nB",
    "## Final answer\nB) It returns None",
    "Answer: option B",
    "Answer: choice (B)",
    "The answer is B",
    "The answer is: B",
    "The answer is **B**.",
    "The answer is therefore B.",
    "The answer should be (B).",
    "So the answer would be B",
    "The correct answer is choice B",
    "The correct option is B",
    "The correct choice is (B).",
    "Correct option: B",
    "My choice is B",
    "I choose B",
    "I would go with option B.",
    "I'd pick (B).",
    "Option B is correct.",
    "(B) is the correct answer.",
    "B is correct, since it returns None",
    "<answer>B</answer>",
    "<answer>\n(B)\n</answer>",
    "<answer>The correct answer is (B)</answer> as I said about A",
    "<answer>B) It returns None</answer>",
    "Answer: <answer>B</answer>",
    "\\boxed{B}",
    "$\\boxed{B}$",
    "\\boxed{(B)}",
    "\\boxed{\\text{B}}",
    "\\boxed{\\textbf{(B)}}",
    "\\boxed{\\mathrm{B}}",
    "\\boxed{\\text{Option B}}",
    "\\boxed B",
    "The answer is $\\boxed{B}$.",
    '{"answer": "B"}',
    '{"answer": "(B)"}',
    "{'answer': 'B'}",
    '{"reasoning": "A is never called", "answer": "B"}',
    '{"answer": "B", "A": "wrong"}',
    '```json\n{"final_answer": "B"}\n```',
    'Here it is: {"answer": "B"}',
    "The correct answer is (B), A is wrong because it never runs",
    "The answer is B, and A is wrong",
    "Answer: B, C and D are incorrect",
    "Answer: B (not A)",
    "Answer: B, not A",
    "Answer: B rather than C",
    "Answer: B. A is never called.",
    "Answer: B. A loop runs first.",
    "Answer: B; C fails",
    "Answer: (B) A, C and D",
    "B\n\nExplanation: A is never called",
    "I read A, then C.\nB",
    "First I thought the answer is A. No: the answer is B",
    "Answer: A\nWait. Answer: B",
    "The answer is B. The wrong answer is A.",
    r"The answer is \(B\)",
    "B is the answer",
    "Selected: B",
    "Final: B",
    "答案：B",
    "Answer：（B）",
    "**B**: It returns None",
    "The answer is most likely B",
    "The correct statement is B",
    "A) no\nB) yes\nC) no\nAnswer: B",
]


@pytest.mark.parametrize("response", FORMS)
def test_every_usual_form_is_read(response: str):
    assert codeqa.extract_choice(response, "strict") == "B"


# No choice, or more than one.
NOTHING = [
    "",
    "I do not know",
    "A or B",
    "A and B",
    "A, B",
    "A/B",
    "Answer: A or B",
    "A=B=C=D",
    "B=C",
    "A|B",
    "A>B",
    "Answer: A = B = C = D",
    "Answer: B=C",
    "Answer: (B) | (C)",
    "The answer is A > B",
    "Answer: A -> B",
    "\\boxed{A=B}",
    "<answer>A|B</answer>",
    "C|D is correct",
    "Answer: A or (B)",
    "Answer: (A) or (B)",
    "Answer: A and B",
    "Answer: A, B",
    "Answer: A, B and C",
    "Answer: A & B",
    "Answer: A/B",
    "Answer: A B",
    "Answer: A, B are both correct",
    "Answer: A and B are correct",
    "Answer: A, B, C, D",
    "Answer: ABCD",
    "Answer: either A or B",
    "Answer: both A and B",
    "The answer is A or B",
    "\\boxed{A, B}",
    "\\boxed{A or B}",
    "<answer>A, B</answer>",
    '{"answer": "A or B"}',
    '{"answer": ["A", "B"]}',
    "A or B is correct",
    "The answer is not A",
    "The answer isn't A",
    "Option A is incorrect",
    "Option A is not correct",
    "The wrong answer is A",
    "Answer: A function that returns None",
    "Answer: Alpha",
    "Answer: A1",
    "Answer: C++",
    "Answer: C#",
    "Answer: a",
    "Answer: E",
    "Answer:",
    "A function is called",
    "A) It returns None\nB) It raises\nC) It loops\nD) It ends",
    "Answer:\nA) It returns None\nB) It raises\nC) It loops\nD) It ends",
    "A. It returns None\nB. It raises",
    "B, I think",
]


@pytest.mark.parametrize("response", NOTHING)
def test_two_choices_or_none_are_no_answer(response: str):
    assert codeqa.extract_choice(response, "strict") is None


DIGITS = [
    ("Answer: 2", "2"),
    ("2) It returns None", "2"),
    ("Option 2 is correct", "2"),
    ("<answer>2. It returns None</answer>", "2"),
    ('{"answer": 2}', "2"),
    ("\\boxed{2}", "2"),
    ("1. I read the file.\n2. It returns None.", None),
    ("1. I read the file.\nIt returns None.", None),
    ("Answer: 2.5", None),
    ("Answer: 23", None),
    ("Answer: 2 or 3", None),
    ("2 is correct", None),
]


@pytest.mark.parametrize(("response", "choice"), DIGITS)
def test_choices_that_are_digits(response: str, choice: str | None):
    assert codeqa.extract_choice(response, "strict", choices="0123") == choice


letters = st.sampled_from("ABCD")
frames = st.sampled_from(
    [
        "{}",
        "({})",
        "**{}**",
        "Answer: {}",
        "Answer:\n{}",
        "The correct answer is ({})",
        "\\boxed{{\\text{{{}}}}}",
        "<answer>{}</answer>",
        '{{"answer": "{}"}}',
        "{}) because it returns",
        "Option {} is correct",
    ]
)


@settings(max_examples=300, deadline=None)
@given(letters, frames)
def test_any_choice_in_any_frame(letter: str, frame: str):
    assert codeqa.extract_choice(frame.format(letter), "strict") == letter


@settings(max_examples=300, deadline=None)
@given(letters, letters, frames, st.sampled_from([" or ", " and ", ", ", "/", " & ", ","]))
def test_two_choices_in_any_frame_are_no_answer(one: str, other: str, frame: str, join: str):
    if one != other and not frame.endswith("returns"):
        assert codeqa.extract_choice(frame.format(one + join + other), "strict") is None
