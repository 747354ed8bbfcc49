"""The lessons of all environments that tiny-rlm knows."""

from __future__ import annotations

from tiny_rlm.codeqa.lessons import CodeQALessons
from tiny_rlm.deepdive.lessons import DeepDiveLessons
from tiny_rlm.lessons import Lessons
from tiny_rlm.math_python import MathPythonLessons
from tiny_rlm.needle import NeedleLessons
from tiny_rlm.oolong.lessons import OolongLessons
from tiny_rlm.verbatim_copy import VerbatimCopyLessons


def all_lessons() -> list[Lessons]:
    """In the order in which they are reported."""
    return [
        OolongLessons(),
        NeedleLessons(),
        VerbatimCopyLessons(),
        MathPythonLessons(),
        CodeQALessons(),
        DeepDiveLessons(),
    ]
