"""DeepDive's rules: what they call equal is final, so that it must be; every usual form of an equal value is."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlm_rewards import deepdive
from rlm_rewards.dates import find_dates
from rlm_rewards.quantities import find_quantities, plain_text

# gold, answer: the same value in other clothes
EQUAL = [
    ("5,000,000", "5 million"),
    ("5 million", "5,000,000"),
    ("5 million", "5e6"),
    ("5e6", "5 million"),
    ("5 million", "five million"),
    ("$5 million", "5,000,000 dollars"),
    ("$5 million", "US$5,000,000"),
    ("€1.5bn", "1.5 billion euros"),
    ("2024-03-05", "March 5, 2024"),
    ("5 March 2024", "2024-03-05"),
    ("5 March 2024", "datetime.date(2024, 3, 5)"),
    ("5 March 2024", "5th of March, 2024"),
    ("5 March 2024", "2024-03-05 00:00:00"),
    ("5 March 2024", "the fifth of March 2024"),
    ("5 March 2024", "Tuesday, 5 March 2024"),
    ("5 March 2024", "05.03.2024"),
    ("25 March 2024", "25/03/2024"),
    ("25 March 2024", "03/25/2024"),
    ("March 2024", "2024-03"),
    ("March 2024", "Mar 2024"),
    ("10%", "10 percent"),
    ("10%", "10 per cent"),
    ("12 km", "12 kilometres"),
    ("12 km", "12,000 m"),
    ("-5", "−5"),
    ("-5", "minus 5"),
    ("-40 °C", "-40 degrees Celsius"),
    ("C++", "c++"),
    ("3.5", "3.50"),
    ("1 234 567", "1,234,567"),
    ("2½", "2.5"),
    ("1/2", "0.5"),
    ("12 Monkeys", "12 monkeys"),
    ("Sagittarius A*", "Sagittarius A*"),
    ("Jean-Luc Picard", "Jean Luc Picard"),
    ("44 BC", "44 BCE"),
    ("AT&T", "AT&T"),
    ("1960s", "the 1960s"),
    ("Apollo 11", "Apollo 11"),
    ("5 million", "5M"),
    ("5-6", "5–6"),
    ("O'Brien", "O’Brien"),
    ("5 kg", "5000 g"),
    ("1,000", "1000"),
    ("12 km/h", "12 kilometers per hour"),
    ("seven", "7"),
    ("5", "5 (five)"),
    ("H2O", "H₂O"),
]

# gold, answer: another value, or one that only a judge can call the same
NOT_SURE = [
    ("-5", "5"),
    ("5", "-5"),
    ("5 million", "5 billion"),
    ("12 km", "12 miles"),
    ("€50", "$50"),
    ("C++", "C"),
    ("C#", "C++"),
    ("5 million", "5"),
    ("5", "5 million"),
    ("10%", "10"),
    ("10", "10%"),
    ("0.1", "10%"),
    ("$5", "€5"),
    ("$5", "£5"),
    ("$5", "5"),
    ("5 kg", "5 lb"),
    ("5 °C", "5 °F"),
    ("5 °C", "-5 °C"),
    ("A+", "A"),
    ("A", "A-"),
    ("A-", "A+"),
    ("F#", "F"),
    ("Sagittarius A*", "Sagittarius A"),
    ("Sagittarius A", "Sagittarius A*"),
    (".NET", "NET"),
    ("44 BC", "44 AD"),
    ("44 BC", "44"),
    ("5 am", "5 pm"),
    ("10:30", "10.30"),
    ("3.14", "314"),
    ("5", "not 5"),
    ("5", "less than 5"),
    ("5", "5 or 6"),
    ("5", "5-6"),
    ("5", "half of 5"),
    ("1960s", "1960"),
    ("1960", "1960s"),
    ("12 Monkeys", "12"),
    ("5 thousand", "5"),
    ("5k", "5"),
    ("5", "5k"),
    ("10^6", "106"),
    ("10²", "102"),
    ("x²", "x2"),
    ("007", "7"),
    ("5th", "5"),
    ("5", "5th"),
    ("5 dozen", "5"),
    ("12 March 1874", "not 12 March 1874"),
    ("12 March 1874", "before 12 March 1874"),
    ("12 March 1874", "12 March 1874 BC"),
    ("Velstad", "not Velstad"),
    ("Velstad", "Velstad (or Orsund)"),
    ("Velstad", "Velstad or Orsund"),
    ("5 apples", "5 oranges"),
    ("Group A1", "Group A"),
    ("x ≠ 5", "x = 5"),
    ("5%", "5‰"),
    ("5 m", "5M"),
    ("5 MW", "5 mW"),
    ("5 percent", "5 percentage points"),
    ("1,5", "15"),
    ("1.5", "15"),
    ("2-1", "21"),
    ("2–1", "1–2"),
    ("+5", "5%"),
    ("3/4", "34"),
    ("4/3", "3/4"),
    ("5C", "5"),
    ("64", "2^64"),
    ("March 2024", "5 March 2024"),
    ("5 March 2024", "March 2024"),
    ("5 March 2024", "3 May 2024"),
    ("5 March 2024", "05/03/2024"),
    ("5 km", "5"),
    ("5", "5 km"),
    ("5 km", "5 km²"),
    ("$5", "5 cents"),
    ("5 usd", "5 aud"),
    ("Python 3.10", "Python 3.1"),
    ("Se7en", "Seen"),
    ("I", "II"),
    ("A & B", "A or B"),
    ("true", "false"),
    ("5 years", "5 months"),
    ("100 m", "100 miles"),
    ("5 million dollars", "5 million euros"),
    ("5:1", "51"),
    ("1:2", "2:1"),
    ("#1", "1"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_values_are_equal_in_any_form(gold: str, answer: str):
    assert deepdive.score(f"Answer: {answer}", gold) == 1.0
    assert deepdive.score(f"Answer: {gold}", gold) == 1.0


@pytest.mark.parametrize(("gold", "answer"), NOT_SURE)
def test_what_may_be_another_value_is_left_to_the_judge(gold: str, answer: str):
    assert deepdive.score(f"Answer: {answer}", gold) == 0.0


# a whole reply, the answer in it
REPLIES = [
    ("Answer:\nVelstad", "Velstad"),
    ("**Answer:**\n\n**Velstad**", "Velstad"),
    ("I am sure.\n### Answer:\n\nVelstad\n", "Velstad"),
    ("<answer>Velstad</answer>", "Velstad"),
    ("<answer>\nVelstad\n</answer> as I said", "Velstad"),
    ("Answer: <answer>Velstad</answer>", "Velstad"),
    ('{"answer": "Velstad"}', "Velstad"),
    ('```json\n{"reason": "it says so", "final_answer": "Velstad"}\n```', "Velstad"),
    ('{"answer": 5}', "5"),
    ("\\boxed{\\text{Velstad}}", "\\text{Velstad}"),
    ("Answer: Sagittarius A*", "Sagittarius A*"),
    ("**Answer: Sagittarius A***", "Sagittarius A*"),
    ("*Answer: Velstad*", "Velstad"),
    ("Answer: _Velstad_", "Velstad"),
]


@pytest.mark.parametrize(("reply", "answer"), REPLIES)
def test_the_answer_is_found_in_every_usual_form_of_reply(reply: str, answer: str):
    assert deepdive.extract_answer(reply) == answer
    assert deepdive.score(reply, answer) == 1.0


def test_a_unit_that_the_question_asks_for_may_be_named():
    question = "How many kilometres long is that river?"
    for answer in ("1,126", "1126 km", "1,126 kilometers", "1,126,000 m"):
        assert deepdive.score(f"Answer: {answer}", "1,126", (), question) == 1.0
    assert deepdive.score("Answer: 1,126 miles", "1,126", (), question) == 0.0


SCALES = {"": 1, " thousand": 10**3, " million": 10**6, " billion": 10**9}
amounts = st.tuples(
    st.sampled_from(["", "-"]),
    st.sampled_from(["", "$", "€"]),
    st.integers(1, 10**6),
    st.sampled_from(list(SCALES)),
    st.sampled_from(["", " km", " kg", "%", " miles"]),
)


def written(amount: tuple[str, str, int, str, str], commas: bool, spelled_out: bool) -> str:
    sign, money, number, scale, unit = amount
    if spelled_out:
        number, scale = number * SCALES[scale], ""
    return f"{sign}{money}{format(number, ',') if commas else number}{scale}{'' if money else unit}"


def value(amount: tuple[str, str, int, str, str]) -> tuple:
    sign, money, number, scale, unit = amount
    return (sign, money, number * SCALES[scale], "" if money else unit)


@settings(max_examples=300, deadline=None)
@given(amounts, amounts, st.booleans(), st.booleans())
def test_amounts_are_equal_where_sign_currency_value_and_unit_are(one: tuple, other: tuple, commas: bool, out: bool):
    gold = written(one, commas=False, spelled_out=False)
    assert deepdive.answers_match(written(one, commas, out), gold)
    assert deepdive.answers_match(written(other, commas, out), gold) is (value(one) == value(other))


FORMS = [
    "{d.day} {m} {d.year}",
    "{m} {d.day}, {d.year}",
    "{d.day} {s} {d.year}",
    "{s}. {d.day}, {d.year}",
    "{d.year}-{d.month:02}-{d.day:02}",
    "{d.year}/{d.month}/{d.day}",
    "{d.day:02}.{d.month:02}.{d.year}",
    "{d!r}",
    "{d.year}-{d.month:02}-{d.day:02} 00:00:00",
    "{d.year}-{d.month:02}-{d.day:02}T00:00:00Z",
    "on {m} {d.day} {d.year}",
]
dates = st.dates(date(1000, 1, 1), date(2999, 12, 31))


@settings(max_examples=300, deadline=None)
@given(dates, dates, st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_dates_are_equal_in_every_form(one: date, other: date, form: str, gold_form: str):
    def show(day: date, form: str) -> str:
        return form.format(d=day, m=day.strftime("%B"), s=day.strftime("%b"))

    assert deepdive.answers_match(show(one, form), show(one, gold_form))
    assume(one != other)
    assert not deepdive.answers_match(show(other, form), show(one, gold_form))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ABab+#*-. &'é", min_size=1, max_size=6), st.sampled_from(["+", "#", "*", "++", "$", "%", "="]))
def test_a_sign_behind_a_name_makes_another_name(name: str, sign: str):
    assume(any(char.isalpha() for char in name) and name[-1].isalpha())
    assert not deepdive.answers_match(name + sign, name)
    assert not deepdive.answers_match(name, name + sign)


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=300))
def test_reading_is_total(text: str):
    plain = plain_text(text)
    for found in find_quantities(plain):
        assert 0 <= found.start <= found.end <= len(plain)
    for one in find_dates(text.lower()):
        assert 1 <= one.date.month <= 12


def test_queries_without_words_are_left_out_as_in_the_original():
    assert deepdive.redundancy(["", "a b", "a b"]) == 1.0
    assert deepdive.redundancy(["", " ", "!", "a b"]) == 0.0
