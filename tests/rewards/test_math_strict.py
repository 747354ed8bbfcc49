"""Math, strict: what people and Python write for a value scores, and what only looks like it does not."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlm_rewards import math_forms, math_python
from rlm_rewards.python_latex import python_to_latex
from tests.rewards.hostile import LONG

pytest.importorskip("math_verify", reason="the extra `math` is not installed")


# gold, answer: the same value
SAME = [
    ("-2\\pi", "-2*pi"),
    ("\\dfrac{\\pi}{2}", "pi/2"),
    ("2^{10}", "2**10"),
    ("1500000", "1.5e6"),
    ("\\frac{3}{4}", "Fraction(3, 4)"),
    ("5", "5."),
    ("1234567", "1\\,234\\,567"),
    ("1234567", "1 234 567"),
    ("\\infty", "∞"),
    ("\\sqrt{2}", "√2"),
    ("0.\\overline{3}", "\\frac13"),
    ("\\emptyset", "\\varnothing"),
    ("73", "**73**"),
    ("-1", "e^{i\\pi}"),
    ("1024", "2^10"),
    ("e^{16}-1", "-1 + exp(16)"),
    ("\\frac{1}{\\sqrt{n}}", "sqrt(1/n)"),
    ("\\frac{1}{\\sqrt{n}}", "1/sqrt(n)"),
    ("\\sqrt[3]{2}", "2**(1/3)"),
    ("\\frac{\\sqrt{3}}{2}", "sqrt(3)/2"),
    ("\\frac{1+\\sqrt5}{2}", "1/2 + sqrt(5)/2"),
    ("\\frac{1+\\sqrt{5}}{2}", "(1 + sqrt(5))/2"),
    ("1+2i", "(1+2j)"),
    ("1+2i", "1 + 2*I"),
    ("2i", "2*I"),
    ("2i", "2j"),
    ("\\{1,2\\}", "{1, 2}"),
    ("\\{1,2\\}", "[1, 2]"),
    ("\\{1,2\\}", "{2, 1}"),
    ("1,2", "[1, 2]"),
    ("1,2", "(1, 2)"),
    ("1, 2", "{1, 2}"),
    ("(1,2)", "(1, 2)"),
    ("(1,2,3)", "[1, 2, 3]"),
    ("[0,1)", "Interval.Ropen(0, 1)"),
    ("(0,1)", "Interval.open(0, 1)"),
    ("[0,1]", "Interval(0, 1)"),
    ("(-\\infty,1)\\cup(3,\\infty)", "Union(Interval.open(-oo, 1), Interval.open(3, oo))"),
    ("x>3", "x > 3"),
    ("x>3", "Interval.open(3, oo)"),
    ("0<x<1", "(0 < x) & (x < 1)"),
    ("x<3", "(-oo < x) & (x < 3)"),
    ("x=5", "Eq(x, 5)"),
    ("5", "Decimal('5')"),
    ("0.5", "Decimal('0.5')"),
    ("0.5", "np.float64(0.5)"),
    ("5", "np.int64(5)"),
    ("\\frac12", "Rational(1, 2)"),
    ("\\frac{1}{2}", "½"),
    ("\\frac{3}{2}", "1½"),
    ("\\frac{3}{2}", "1 1/2"),
    ("\\frac32", "1\\frac{1}{2}"),
    ("-\\frac{3}{2}", "-1½"),
    ("x^2", "x²"),
    ("10^{-3}", "10⁻³"),
    ("-5", "−5"),
    ("\\pi", "π"),
    ("\\frac{\\pi}{2}", "π/2"),
    ("2\\pi", "2π"),
    ("\\pi r^2", "pi*r**2"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "Matrix([[1, 2], [3, 4]])"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "[[1, 2], [3, 4]]"),
    ("\\emptyset", "set()"),
    ("\\emptyset", "EmptySet"),
    ("\\emptyset", "∅"),
    ("\\infty", "oo"),
    ("-\\infty", "-oo"),
    ("\\infty", "inf"),
    ("x^2+2x+1", "x**2 + 2*x + 1"),
    ("x^2+2x+1", "(x + 1)**2"),
    ("\\ln 2", "log(2)"),
    ("\\log_2 3", "log(3, 2)"),
    ("\\cos\\frac{\\pi}{5}", "cos(pi/5)"),
    ("\\binom{10}{3}", "binomial(10, 3)"),
    ("120", "factorial(5)"),
    ("5!", "120"),
    ("1000", "1,000"),
    ("1000", "1{,}000"),
    ("1000000", "1_000_000"),
    ("1000000", "1'000'000"),
    ("12345.678", "12,345.678"),
    ("5", "$5$"),
    ("5", "\\(5\\)"),
    ("5", "`5`"),
    ("5", "'5'"),
    ("5", "5.0"),
    ("0.00001", "1e-05"),
    ("10^{400}", "1e400"),
    ("\\frac{1}{3}", "0.333333"),
    ("\\frac13", "0.3333333333333333"),
    ("5", "x = 5"),
    ("5", "5 = x"),
    ("3", "S = 1+2 = 3"),
    ("34", "a+b+c=34"),
    ("\\frac13", "\\frac{1}{3} \\approx 0.333"),
    ("\\frac13", "x = \\frac{1}{3} = 0.3333"),
    ("0.333", "\\frac13 \\approx 0.333"),
    ("5000000", "5 million"),
    ("5000000", "5 \\text{ million}"),
    ("5 \\text{ million}", "5000000"),
    ("5 \\text{ km}", "5 km"),
    ("5 \\text{ km}", "5"),
    ("5", "5 km"),
    ("5 \\text{ km}", "5000 \\text{ m}"),
    ("5 \\text{ km}", "5 \\text{ kilometers}"),
    ("34", "34 \\text{ cm}"),
    ("34 \\text{ cm}^2", "34"),
    ("34 \\text{ cm}^2", "34 cm^2"),
    ("34 \\text{ cm}^2", "34 \\text{ square cm}"),
    ("\\$5", "5 dollars"),
    ("\\$5", "\\$5.00"),
    ("\\$5", "5"),
    ("30^\\circ", "30 degrees"),
    ("30^\\circ", "30°"),
    ("30^\\circ", "30"),
    ("50\\%", "50%"),
    ("50\\%", "0.5"),
    ("50\\%", "50"),
    ("50\\%", "50 percent"),
    ("101_2", "101_{2}"),
    ("101_2", "0b101"),
    ("101_2", "101 (base 2)"),
    ("101_2", "101_{\\text{two}}"),
    ("101_2", "101₂"),
    ("5", "5_{10}"),
    ("1F_{16}", "0x1f"),
    ("x=3 \\text{ or } x=4", "x=4 or x=3"),
    ("3, 4", "3 or 4"),
    ("3,4", "4 and 3"),
    ("\\{3,4\\}", "3 or 4"),
    ("\\text{Tuesday}", "Tuesday"),
    ("B", "\\text{(B)}"),
    ("(-\\infty, 2)", "x < 2"),
    ("\\pm 4", "±4"),
    ("\\pm 2", "-2, 2"),
    ("\\frac{1}{6}", "0.1(6)"),
    ("\\frac{1}{6}", "0.1\\overline{6}"),
    ("2", "\\\\sqrt{4}"),
    ("\\frac34", "\\\\frac{3}{4}"),
    ("\\sqrt{3}", "√3"),
    ("\\frac{\\sqrt{3}}{2}", "√3/2"),
    ("\\sqrt{10}", "√10"),
    ("2\\sqrt{3}", "2√3"),
    ("\\sqrt{x+1}", "√(x+1)"),
    ("6", "2×3"),
    ("6", "2·3"),
    ("\\theta", "θ"),
    ("3x", "3*x"),
    ("y=2x+1", "y = 2*x + 1"),
    ("2x+1", "2*x + 1"),
    ("-\\frac{3}{4}", "-3/4"),
    ("-\\frac{3}{4}", "Fraction(-3, 4)"),
    ("\\frac{-3}{4}", "-0.75"),
    ("m \\ge \\sqrt2", "[\\sqrt2, \\infty)"),
    ("12 \\text{ apples}", "12"),
    ("12", "12 apples"),
    ("\\text{yes}", "Yes"),
    ("1:2", "1/2"),
    ("3.14", "≈3.14"),
    ("{5}", "5"),
    ("0", "0.0"),
    ("0", "-0"),
    ("\\left(1,2\\right)", "(1, 2)"),
    ("\\left\\{1,2\\right\\}", "{1, 2}"),
    ("(1,2),(3,4)", "[(1, 2), (3, 4)]"),
    ("\\{(1,2),(3,4)\\}", "{(1, 2), (3, 4)}"),
    ("x^{2}", "x^2"),
    ("\\frac{a}{b}", "a/b"),
    ("1 \\text{ hour}", "60 minutes"),
    ("7", "x=7."),
    ("\\mathbb{R}", "ℝ"),
    ("\\mathbb{R}", "Reals"),
    ("4", "\\frac{8}{2} = 4"),
    ("10", "10 units"),
    ("49^\\circ", "49^{\\circ}"),
    ("12 \\text{ cm}", "12\\,\\mathrm{cm}"),
    ("9.8 \\text{ m/s}^2", "9.8 m/s^2"),
    ("\\frac{7}{2}", "3.5"),
    ("99", "99"),
]

# gold, answer: another value, or more than one
OTHER = [
    ("5", "-5"),
    ("-5", "5"),
    ("-5", "5."),
    ("5", "−5"),
    ("5", "5 million"),
    ("5 \\text{ million}", "5"),
    ("5 \\text{ million}", "5 \\text{ billion}"),
    ("5000000", "5 billion"),
    ("5", "5 thousand"),
    ("5", "5k"),
    ("5", "5 dozen"),
    ("0.05", "5"),
    ("5", "0.05"),
    ("500", "5"),
    ("5 \\text{ km}", "5 \\text{ miles}"),
    ("5 \\text{ km}", "5 \\text{ m}"),
    ("5 km", "5 miles"),
    ("5 \\text{ kg}", "5 \\text{ lb}"),
    ("5 \\text{ hours}", "5 \\text{ minutes}"),
    ("\\$5", "€5"),
    ("\\$5", "\\pounds 5"),
    ("\\$5", "5 euros"),
    ("€5", "£5"),
    ("30^\\circ", "30 \\text{ rad}"),
    ("30^\\circ C", "30^\\circ F"),
    ("12 \\text{ apples}", "12 \\text{ oranges}"),
    ("34 \\text{ cm}", "34 \\text{ cm}^2"),
    ("101_2", "101_3"),
    ("101_2", "101"),
    ("101", "101_2"),
    ("5", "101_2"),
    ("101_2", "5"),
    ("11", "0x11"),
    ("11", "11_8"),
    ("5", "0b101"),
    ("4", "1=2=3=4"),
    ("4", "4=3=2=1"),
    ("1", "1=2=3=4"),
    ("4", "x=1=2=3=4"),
    ("4", "1=2"),
    ("2", "1=2"),
    ("4", "2+3=4"),
    ("4", "2+2=5"),
    ("4", "2 or 4"),
    ("4", "4 or 2"),
    ("4", "3 \\text{ or } 4"),
    ("4", "either 3 or 4"),
    ("4", "3, 4"),
    ("4", "4, 3"),
    ("4", "x=3 \\text{ or } x=4"),
    ("4", "3 and 4"),
    ("4", "3;4"),
    ("4", "3 4"),
    ("7", "3 4"),
    ("235", "1 234"),
    ("4", "4 \\approx 5"),
    ("4", "3.5 \\approx 4 \\approx 4.5"),
    ("4", "\\neq 4"),
    ("4", "\\ge 4"),
    ("4", "x \\ge 4"),
    ("4", "x>4"),
    ("4", "4 \\text{ or more}"),
    ("4", "at least 4"),
    ("4", "about 4"),
    ("4", "not 4"),
    ("4", "\\text{not } 4"),
    ("3", "\\{x \\mid x > 3\\}"),
    ("4", "\\pm 4"),
    ("\\pm 4", "4"),
    ("4", "4i"),
    ("4", "4!"),
    ("34", "3,4"),
    ("34", "3 4"),
    ("1234", "1,2,3,4"),
    ("0.5", "0,5"),
    ("3.14", "314"),
    ("314", "3.14"),
    ("B", "A, B"),
    ("B", "A or B"),
    ("\\text{Tuesday}", "Monday or Tuesday"),
    ("\\text{Tuesday}", "Monday"),
    ("\\frac13", "0.33"),
    ("[0,1)", "[0, 1]"),
    ("(0,1)", "[0, 1]"),
    ("(0,1)", "Interval(0, 1)"),
    ("(1,2)", "[1, 2]"),
    ("(1,2)", "(2, 1)"),
    ("(1,2)", "{1, 2}"),
    ("\\{1,2\\}", "{1, 3}"),
    ("\\{1,2\\}", "{1}"),
    ("2^{10}", "2*10"),
    ("2^{10}", "210"),
    ("x^2", "x2"),
    ("x^2", "2x"),
    ("10^{-3}", "10^3"),
    ("1500000", "1.5e5"),
    ("\\frac{3}{4}", "Fraction(4, 3)"),
    ("\\frac{3}{4}", "34"),
    ("\\pi", "3.14"),
    ("\\infty", "-oo"),
    ("0.\\overline{3}", "0.3"),
    ("-1", "e^{\\pi}"),
    ("1", "e^{i\\pi}"),
    ("1+2i", "1-2j"),
    ("2i", "2"),
    ("2", "2i"),
    ("50\\%", "5"),
    ("50\\%", "0.05"),
    ("\\emptyset", "0"),
    ("0", "\\emptyset"),
    ("1000", "1"),
    ("1", "1,000"),
    ("5", "5 = 6"),
    ("33", "33.5=34=33"),
    ("999", "998≈999≈1000"),
    ("x=4", "y=4"),
    ("x=4", "x=5"),
    ("10:30", "10:31"),
    ("5", "5/1000"),
    ("\\sqrt{2}", "2"),
    ("√2", "2"),
    ("12", "1\\frac{1}{2}"),
    ("\\frac{3}{2}", "11/2"),
    ("2", "\\text{two or three}"),
    ("5", "5, maybe 6"),
    ("5", "5?6"),
    ("5", "5 or so"),
    ("5", "nearly 5"),
    ("5", "half of 5"),
    ("5", "more than 5"),
    ("5", "5+"),
    ("5", "<5"),
    ("5", "5-6"),
    ("5", "5 to 6"),
    ("5", "5\\text{ to }6"),
    ("1 \\text{ hour}", "1 \\text{ minute}"),
    ("100 \\text{ cm}", "100 m"),
    ("5 \\text{ m}", "5M"),
]


def strict(answer: str, gold: str) -> float:
    return math_python.score(f"\\boxed{{{answer}}}", gold, "strict")


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_every_usual_form_of_a_value_scores(gold: str, answer: str):
    assert strict(answer, gold) == 1.0


@pytest.mark.parametrize(("gold", "answer"), OTHER)
def test_another_value_does_not_score(gold: str, answer: str):
    assert strict(answer, gold) == 0.0


# a whole reply, what strict reads in it
REPLIES = [
    ("\\boxed{5}", "5"),
    ("\\boxed 5", "5"),
    ("\\boxed5", "5"),
    ("so $\\boxed5$.", "5"),
    ("\\boxed-12", "-12"),
    ("\\boxed\\pi", "\\pi"),
    ("\\boxed{5", ""),
    ("5", ""),
    ("</think>\\boxed{\n5\n}", "\n5\n"),
]


@pytest.mark.parametrize(("reply", "inside"), REPLIES)
def test_what_counts_as_a_closed_box(reply: str, inside: str):
    assert math_python.extract(reply, "strict") == inside


@pytest.mark.parametrize(
    ("python", "latex"),
    [
        ("-2*pi", r"(-2) \cdot \pi"),
        ("Fraction(3, 4)", r"\frac{3}{4}"),
        ("1.5e6", "1500000"),
        ("np.float64(0.5)", "0.5"),
        ("Decimal('1E+3')", "1000"),
        ("Interval.Lopen(0, 1)", "(0, 1]"),
        ("Interval(0, 1, True, False)", "(0, 1]"),
        ("{1, 2}", r"\{1, 2\}"),
        ("x(x + 1)", None),
        ("open('/etc/passwd')", None),
        ("(lambda: 1)()", None),
        ("[i for i in range(9)]", None),
        ("9**9**9**9", "{9}^{{9}^{{9}^{9}}}"),
        ("0x1f", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_python_is_read_and_never_run(python: str, latex: str | None):
    assert python_to_latex(python) == latex


numbers = st.fractions(min_value=-1000, max_value=1000, max_denominator=50)


def gold_of(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


WRITTEN = [
    repr,
    str,
    gold_of,
    lambda value: f"Rational({value.numerator}, {value.denominator})",
    lambda value: f"x = {gold_of(value)}",
    lambda value: f"${gold_of(value)}$",
    lambda value: f"**{value}**",
    lambda value: str(value).replace("-", "\u2212"),
    lambda value: f"{value}.",
]


@settings(max_examples=60, deadline=None)
@given(numbers, numbers, st.sampled_from(WRITTEN))
def test_fractions_are_equal_in_every_form(value: Fraction, other: Fraction, write):
    assert strict(write(value), gold_of(value)) == 1.0
    assume(value != other)
    assert strict(write(other), gold_of(value)) == 0.0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 10**9),
    st.sampled_from(["-{}", "{} thousand", "{} million", "{}, {}+1", "{} or 0", "0={}", "{}_{{12}}"]),
)
def test_a_number_with_something_else_is_another(number: int, frame: str):
    assert strict(frame.replace("{}", str(number)).replace("{{", "{").replace("}}", "}"), str(number)) == 0.0


pieces = st.lists(
    st.sampled_from(
        [
            "1",
            "23",
            ".",
            ",",
            "\\,",
            " ",
            "=",
            "\\approx",
            "_",
            "{",
            "}",
            "(",
            ")",
            "x",
            "pi",
            "**",
            "^",
            "\\text{",
            "or",
            *[
                "km",
                "\\%",
                "\\$",
                "½",
                "−",
                "²",
                "√",
                "million",
                "/",
                "<",
                "\\frac",
                "Fraction(",
                "e5",
                "'",
                "°",
                "⟦",
                "⟧",
            ],
        ]
    ),
    max_size=10,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(pieces | st.text(max_size=40))
def test_reading_is_total_and_an_answer_may_equal_itself(text: str):
    form = math_forms.read(text)
    assert form.values
    assert math_forms.may_be_equal(form, form)
    for gold, answer in math_forms.pairs(form, form):
        assert isinstance(gold, str)
        assert isinstance(answer, str)


@pytest.mark.parametrize("name", LONG)
def test_reading_a_long_answer_takes_no_long(name: str):
    started = time.process_time()
    math_forms.read(LONG[name][: math_python.MAX_LENGTH])
    math_forms.read("1" + LONG[name][: math_python.MAX_LENGTH - 2] + "=")
    assert time.process_time() - started < 2


def test_a_comparison_that_was_ended_is_not_tried_again(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(math_python._helper, "ask", lambda question: asked.append(question))
    assert math_python.scores("\\boxed{9^{9^{9^{9}}}}", "34") == {"official": 0.0, "strict": 0.0}
    assert len(asked) == 1


def test_a_worker_that_is_killed_is_no_zero(monkeypatch: pytest.MonkeyPatch):
    helper = math_python.Helper()
    monkeypatch.setattr(math_python, "_helper", helper)

    def killed(worker: math_python.MathWorker) -> bytes:
        worker.process.kill()
        worker.process.wait()
        raise EOFError

    assert math_python.score("\\boxed{34}", "34") == 1.0
    monkeypatch.setattr(math_python.MathWorker, "read_line", killed)
    with pytest.raises(RuntimeError, match=r"does not start|killed twice"):
        math_python.score("\\boxed{34}", "34")
    monkeypatch.undo()
    assert helper.verify("34", "34")
    helper.close()
