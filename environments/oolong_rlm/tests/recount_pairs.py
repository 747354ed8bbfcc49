"""A second program that answers questions of Oolong-Pairs, from nothing but the texts of context and question.

It reads lines and undoes frames as `recount.py` beside it does, and imports nothing of the project. It understands the
wording of the generated questions and that of the published ones, and tries every pair of users in both orders. Usage
as `recount.py`; a list of [lower id, higher id] comes out for each task.
"""

import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from recount import MONTHS, Undo, read

NUMBERS = {"one": 1, "two": 2}
NEED = re.compile(r"(at least|exactly) (\w+) instances? with (?:the label '([^']+)'|([a-z ]+?)(?= and |$))")
DATED = re.compile(
    r", and all instances (?:with the label '([^']+)' of both users are|that are an? ([a-z ]+) for both users must be) "
    r"(after|before) (\w+) (\d+), (\d+)"
)
LABELS = ("description and abstract concept", "entity", "human being", "numeric value", "location", "abbreviation")


def needs_of(text):
    """[(exactly?, number, label)] of a condition. The one published label that holds an 'and' is masked."""
    masked = text.replace(LABELS[0], "description")
    found = []
    for how, number, quoted, bare in NEED.findall(masked):
        label = quoted or bare
        label = LABELS[0] if label == "description" else label
        found.append((how == "exactly", NUMBERS[number] if number in NUMBERS else int(number), label))
    return found


def meets(rows, need):
    exactly, number, label = need
    n = sum(1 for row in rows if row[2] == label)
    return n == number if exactly else n >= number


def conditions(question):
    """(condition of one user, condition of the other), each a function of the user's rows."""
    if "where both users have" not in question:
        one, other = question.split("such that one user has ", 1)[1].split(", and the other user has ", 1)
        first, second = needs_of(one), needs_of(other.split(". ", 1)[0])
        return (
            lambda rows: all(meets(rows, need) for need in first),
            lambda rows: all(meets(rows, need) for need in second),
        )
    what = question.split("where both users have ", 1)[1].split(". ", 1)[0]
    dated = DATED.search(what)
    what = what.split(", and all instances", 1)[0]
    if "the label" in what:
        needs = [need for part in what.split(" or ") for need in needs_of(part)]
    else:
        both = re.sub("^at least one instance with an? ", "", what)
        needs = [(False, 1, label) for label in both.split(" or ")]

    def condition(rows):
        if not any(meets(rows, need) for need in needs):
            return False
        if not dated:
            return True
        label = dated[1] or dated[2]
        day = (int(dated[6]), MONTHS.index(dated[4]) + 1, int(dated[5]))
        days = [row[0] for row in rows if row[2] == label]
        return all(d > day if dated[3] == "after" else d < day for d in days)

    return condition, condition


def gold(context, question, undo):
    rows = read(context, undo)
    of_user = {}
    for row in rows:
        of_user.setdefault(row[1], []).append(row)
    one, other = conditions(question)
    first = {user: one(mine) for user, mine in of_user.items()}
    second = {user: other(mine) for user, mine in of_user.items()}
    users = sorted(of_user)
    return [[a, b] for a in users for b in users if a < b and ((first[a] and second[b]) or (first[b] and second[a]))]


def main():
    folder = pathlib.Path(sys.argv[1])
    undo = {path.stem: Undo(path) for path in folder.glob("*.json")}
    for line in sys.stdin:
        task = json.loads(line)
        answer = gold(task["context"], task["question"], undo.get(task["vocabulary"]))
        sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
