"""A second program that answers the questions of needle-rlm; it shares no code with the generator.

Reads JSON lines {"context", "question"} from standard input, writes the numbers found, one JSON list a line.
It walks over the digits of the text and looks at the words before each number, where the generator fills templates.
"""

import json
import sys


def numbers_of(context: str, question: str) -> list[str]:
    words = question.replace("?", " ?").split()
    name = words[words.index("?") - 1]
    lead = ("The special magic number for " + name + " is ").lower()
    text = context.replace("\n", " ")
    found, at = [], 0
    while at < len(text):
        if not text[at].isdigit():
            at += 1
            continue
        end = at
        while end < len(text) and text[end].isdigit():
            end += 1
        begin = at - len(lead)
        starts = begin == 0 or text[max(0, begin - 2) : begin] == ". "
        if begin >= 0 and starts and text[begin:at].lower() == lead and text[end : end + 1] == ".":
            found.append(text[at:end])
        at = end
    return found


for line in sys.stdin:
    task = json.loads(line)
    print(json.dumps(numbers_of(task["context"], task["question"])))
