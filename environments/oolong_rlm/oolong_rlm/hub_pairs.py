"""OOLONG-Pairs as published: 20 questions about each window of the source `trec_coarse` of Oolong-synth.

The RLM paper (arXiv:2512.24601, appendix on OOLONG-Pairs) lists the questions; their golds follow from the labels that
the published set prints in its second column. Two readings that the paper leaves open are settled as logic has it: a
user without instances of a label meets "all instances must be after", and a user who meets both roles may be either.
Questions that no pair answers are left out: nothing at all would be the right answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any

from oolong_rlm.pairs import Dated, Need, Pairs, Role, User, gather, long_date
from rlm_env.task import Task

SOURCE = "trec_coarse"
DESCRIPTION, ENTITY, HUMAN = "description and abstract concept", "entity", "human being"
NUMERIC, LOCATION, ABBREVIATION = "numeric value", "location", "abbreviation"
LABELS = (DESCRIPTION, ENTITY, HUMAN, NUMERIC, LOCATION, ABBREVIATION)
LINE = re.compile(r"^Date: (\w{3} \d\d, \d{4}) \|\| User: (\d+) \|\| Instance: .* \|\| Label: (.+?)\s*$", re.M)


def either(first: str, second: str, dated: Dated | None = None) -> tuple[Role, None]:
    return Role((Need(first), Need(second)), dated, any_of=True), None


def exactly(label: str, n: int = 1) -> Need:
    return Need(label, n, exactly=True)


def roles(*needs: tuple[Need, ...]) -> tuple[Role, Role]:
    one, other = needs
    return Role(one), Role(other)


QUERIES: tuple[tuple[Role, Role | None], ...] = (
    either(NUMERIC, LOCATION),
    either(ENTITY, HUMAN),
    either(DESCRIPTION, ABBREVIATION),
    either(HUMAN, LOCATION, Dated(HUMAN, "after", date(2023, 1, 6))),
    either(ENTITY, NUMERIC, Dated(ENTITY, "before", date(2023, 3, 15))),
    either(LOCATION, ABBREVIATION),
    either(DESCRIPTION, NUMERIC, Dated(NUMERIC, "after", date(2023, 2, 1))),
    either(HUMAN, DESCRIPTION),
    either(ENTITY, LOCATION, Dated(LOCATION, "after", date(2023, 4, 10))),
    either(NUMERIC, ABBREVIATION, Dated(ABBREVIATION, "before", date(2023, 5, 20))),
    roles((Need(ENTITY), Need(ABBREVIATION)), (exactly(ENTITY),)),
    roles((Need(NUMERIC, 2),), (Need(LOCATION), Need(HUMAN))),
    roles((exactly(DESCRIPTION),), (Need(ABBREVIATION), Need(ENTITY))),
    roles((Need(HUMAN), Need(NUMERIC)), (exactly(LOCATION, 2),)),
    roles((Need(ENTITY), Need(LOCATION), Need(ABBREVIATION)), (exactly(NUMERIC),)),
    roles((Need(DESCRIPTION), Need(HUMAN)), (Need(ENTITY, 2), exactly(ABBREVIATION))),
    roles((exactly(NUMERIC),), (Need(LOCATION), Need(DESCRIPTION))),
    roles((Need(ABBREVIATION), exactly(HUMAN)), (Need(ENTITY), Need(NUMERIC))),
    roles((Need(LOCATION, 2), Need(ENTITY)), (exactly(DESCRIPTION), exactly(ABBREVIATION))),
    roles((Need(NUMERIC), Need(HUMAN)), (Need(LOCATION), Need(ENTITY), exactly(ABBREVIATION))),
)
"""The paper's questions 1 to 20: the condition of both users, or of one and of the other."""
NUMBERS = {1: "one", 2: "two"}


def query_text(one: Role, other: Role | None) -> str:
    """A question in the paper's form."""
    opening = "In the above data, list all pairs of user IDs (no duplicate pairs, list lower ID first)"
    if other is None:
        what = f"where both users have at least one instance with {article(' or '.join(n.label for n in one.needs))}"
        if one.dated:
            day = long_date(one.dated.day)
            what += f", and all instances that are {article(one.dated.label)} for both users must be "
            what += f"{one.dated.side} {day}"
    else:
        what = f"such that one user has {needed(one)}, and the other user has {needed(other)}"
    return (
        f"{opening} {what}. Each of the questions can be labelled as one of the labels (the data does not provide the "
        "labels, you need to figure out the label from the semantics of the question): "
        f"{', '.join(LABELS)}. In your answer, list all pairs in the format (user_id_1, user_id_2), separated by "
        "newlines."
    )


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def needed(role: Role) -> str:
    return " and ".join(
        f"{'exactly' if need.exactly else 'at least'} {NUMBERS[need.n]} instance{'s' if need.n > 1 else ''} with "
        f"{need.label}"
        for need in role.needs
    )


def read_users(row: Mapping[str, Any]) -> dict[int, User]:
    """The users of a published window. Raises ValueError where a line has no label of the six."""
    text = row["context_window_text_with_labels"]
    found = LINE.findall(text)
    if len(found) != text.count(" || Instance: ") or not {label for _, _, label in found} <= set(LABELS):
        raise ValueError(f"window {row['context_window_id']}: its lines are not dated, signed and labeled as expected")
    return gather((datetime.strptime(day, "%b %d, %Y").date(), int(user), label) for day, user, label in found)


def pair_tasks(row: Mapping[str, Any], with_labels: bool) -> Iterator[Task]:
    """The questions about the window of a published row that some pair answers."""
    users = read_users(row)
    context = row["context_window_text_with_labels" if with_labels else "context_window_text"]
    for number, (one, other) in enumerate(QUERIES, 1):
        pairs = Pairs(users, one, other)
        if not pairs:
            continue
        info = {
            "subset": "pairs",
            "answer_type": "PAIRS",
            "task_group": "pairs",
            "family": f"pairs_{number}",
            "task": "BOTH" if other is None else "ONE_AND_OTHER",
            "length_tokens": row["context_len"],
            "dataset": row["dataset"],
            "with_labels": with_labels,
            "context_window_id": str(row["context_window_id"]),
        }
        id = f"pairs-{row['context_len']}-{row['context_window_id']}-{number}"
        yield Task(query_text(one, other), context, str(pairs), id, info)
