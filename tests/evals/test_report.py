"""Outcomes, sums and tables from rollouts made by hand."""

import io

import pytest
from rich.console import Console

from rlm_env.evals.detail_report import cost_table, program_table, sub_call_table, trait_table
from rlm_env.evals.explained import LEAST_TASKS, PAGE
from rlm_env.evals.outcomes import Outcome, outcome_of
from rlm_env.evals.report import length_table, markdown_report, print_report, report_notes, scaffold_table
from rlm_env.evals.rollout_stats import stats_of
from rlm_env.evals.summary import CountBin, count_bins, length_groups, powers, summarize
from rlm_env.messages import Usage
from rlm_env.rollout import Rollout, Score, StopReason, SubCall, Timing, Turn
from rlm_env.runs.prices import Price, rollout_cost


def rollout(
    scaffold: str, task: int, *, score: float | None = 1.0, stop: str = "ready", repeat: int = 0, **fields
) -> Rollout:
    usage = Usage(100, 10, 0, 1)
    made = Rollout(
        task_id=f"t{task}",
        scaffold=scaffold,
        answer="x" if score else "",
        stop_reason=StopReason(stop),
        score=None if score is None else Score(score),
        turns=[Turn(usage=usage)],
        root_usage=usage,
        timing=Timing(2.0, 1.0, 0.25, 0.5, 0.1),
        info={"repeat": repeat, "task": {"length_tokens": 512 if task % 2 else 4096}},
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def overflow(task: int, needed: int = 4200) -> Rollout:
    return rollout(
        "standard",
        task,
        score=0.0,
        stop="context_overflow",
        turns=[],
        root_usage=Usage(),
        metrics={"overflow_prompt_tokens": needed},
        timing=Timing(0.01),
    )


def summary_of(*rollouts: Rollout):
    scaffolds = list(dict.fromkeys(r.scaffold for r in rollouts))
    return summarize([stats_of(r) for r in rollouts], scaffolds)


@pytest.mark.parametrize("stop", StopReason)
def test_every_stop_reason_has_an_outcome(stop):
    expected = {
        "ready": Outcome.ANSWERED,
        "wall_time": Outcome.TIMEOUT,
        "context_overflow": Outcome.OVERFLOW,
        "error": Outcome.ERROR,
        "cancelled": Outcome.ERROR,
    }.get(stop.value, Outcome.BUDGET)
    assert outcome_of(rollout("rlm", 0, stop=stop)) is expected


def test_a_rollout_without_a_score_is_an_error_and_not_a_zero():
    made = rollout("rlm", 0, score=None)
    assert outcome_of(made) is Outcome.ERROR
    assert stats_of(made).score is None
    failed = rollout("rlm", 0, score=0.0, stop="error")
    assert stats_of(failed).score is None


def test_errors_leave_the_mean_and_overflows_count_as_zero():
    summary = summary_of(
        rollout("standard", 1),
        overflow(2),
        rollout("standard", 3, score=None, stop="error", error="EngineError: no\nx"),
    )
    [scaffold] = summary.scaffolds
    assert scaffold.score.mean == 0.5
    assert (scaffold.rollouts, scaffold.scored) == (3, 2)
    assert scaffold.errors == {"EngineError: no": 1}
    assert scaffold.needed_prompt == 4200


def test_an_overflow_that_cost_nothing_does_not_make_an_scaffold_look_cheap():
    [scaffold] = summary_of(rollout("standard", 1), overflow(2), overflow(4)).scaffolds
    assert scaffold.ran == 1
    assert scaffold.root_prompt_tokens == 100
    assert scaffold.seconds["total"] == 2.0


def test_budgets_are_listed_by_name():
    [scaffold] = summary_of(
        rollout("rlm", 1, stop="max_turns"),
        rollout("rlm", 2, stop="max_turns"),
        rollout("rlm", 3, stop="length"),
        rollout("rlm", 4, stop="wall_time"),
    ).scaffolds
    assert (scaffold.outcomes["budget"], scaffold.outcomes["timeout"]) == (3, 1)
    assert scaffold.budgets == {"max_turns": 2, "length": 1}


REFUSALS = ["I'm sorry, but I can't help with that.", "I cannot assist with this.", "Sorry, I am unable to answer."]
NO_REFUSALS = ["I cannot tell ham from spam; Answer: 3", "Answer: I can't help", "42", "I can't help " * 100]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        *[({"answer": text, "score": 0.0}, Outcome.REFUSED) for text in REFUSALS],
        *[({"answer": text, "score": 0.0}, Outcome.ANSWERED) for text in NO_REFUSALS],
        ({"answer": REFUSALS[0], "score": 1.0}, Outcome.ANSWERED),
        ({"answer": "", "score": 0.0, "turns": [Turn(finish_reason="content_filter")]}, Outcome.REFUSED),
        ({"answer": "", "score": 0.0, "stop": "max_turns", "turns": [Turn(text=REFUSALS[0])]}, Outcome.REFUSED),
        ({"answer": " ", "score": 0.0}, Outcome.UNPARSED),
        ({"answer": "well", "score": 0.0}, Outcome.ANSWERED),
        ({"answer": "", "score": 0.0, "stop": "max_turns", "metrics": {"cells": 0}}, Outcome.UNPARSED),
        ({"answer": "", "score": 0.0, "stop": "max_turns", "metrics": {"cells": 3}}, Outcome.BUDGET),
        ({"answer": "", "score": 0.0, "stop": "wall_time"}, Outcome.TIMEOUT),
    ],
)
def test_no_answer_is_told_apart_from_a_wrong_one(fields, expected):
    assert outcome_of(rollout("rlm", 0, **fields)) is expected


def test_a_scorer_can_say_that_it_found_no_answer():
    made = rollout("rlm", 0, score=0.0, answer="blah")
    made.score = Score(0.0, answered=False)
    assert outcome_of(Rollout.from_json(made.to_json())) is Outcome.UNPARSED


def test_efficiency_charges_an_overflow_with_the_prompt_that_did_not_fit():
    [cheap] = summary_of(rollout("standard", 1)).scaffolds
    [scaffold] = summary_of(rollout("standard", 1), overflow(2, needed=9_890)).scaffolds
    assert cheap.score_per_1k_root_tokens == pytest.approx(1000 / 110)
    assert scaffold.score_per_1k_root_tokens == pytest.approx(1000 / 10_000)
    [by_length] = summary_of(rollout("standard", 1), overflow(2, needed=0)).scaffolds
    assert by_length.score_per_1k_root_tokens == pytest.approx(1000 / (110 + 4096))
    unknown = overflow(2, needed=0)
    unknown.info["task"] = {}
    assert summary_of(rollout("standard", 1), unknown).scaffolds[0].score_per_1k_root_tokens is None


def test_scaffolds_are_compared_over_common_tasks_only():
    summary = summary_of(
        rollout("standard", 1, score=0.0),
        rollout("standard", 2, score=1.0),
        rollout("rlm", 1, score=1.0),
        rollout("rlm", 3, score=0.0),
    )
    [comparison] = summary.comparisons
    assert (comparison.scaffold, comparison.baseline) == ("rlm", "standard")
    assert comparison.difference.mean == 1.0
    assert comparison.difference.tasks == 1


def test_pass_at_k_and_majority_appear_with_repeats():
    [scaffold] = summary_of(
        *(rollout("rlm", 1, repeat=r, score=float(r == 0), answer="a" if r == 0 else "b") for r in range(3))
    ).scaffolds
    assert list(scaffold.pass_at_k) == [1, 2, 3]
    assert scaffold.pass_at_k[1].mean == pytest.approx(1 / 3)
    assert scaffold.pass_at_k[3].mean == 1.0
    assert scaffold.majority.mean == 0.0
    assert powers(1) == []
    assert powers(8) == [1, 2, 4, 8]


def test_lengths_that_are_close_are_one_group():
    rows = [stats_of(rollout("rlm", 0, info={"task": {"length_tokens": n}})) for n in (500, 512, 4000, 4100, 16384)]
    rows.append(stats_of(rollout("rlm", 0, info={"task": {}})))
    assert [(length, len(group)) for length, group in length_groups(rows)] == [(506, 2), (4050, 2), (16384, 1)]


def test_the_overflow_row_says_what_it_would_have_needed():
    summary = summary_of(rollout("standard", 1), overflow(2), rollout("rlm", 1), rollout("rlm", 2))
    table = {row[0].strip(): row[1:] for row in scaffold_table(summary, "x").rows}
    assert table["rollouts: overflow"] == ["1 (up to 4,200 tokens)", "0"]
    assert table["root prompt tokens, longest"] == ["100", "100"]
    assert ["4,096", "standard", "0.00 [0.00, 0.97]", "1 overflow", "needs 4,200", "-", "-"] in length_table(
        summary
    ).rows


def test_sub_calls_and_money():
    made = rollout("rlm", 1, sub_usage=Usage(200, 20, 50, 2))
    made.sub_calls = [SubCall(0, 0, 0, []), SubCall(1, 0, 0, [], error="no")]
    prices = (Price(prompt=10.0, completion=100.0), Price(prompt=1.0, completion=2.0, cached=0.1))
    assert rollout_cost(made, *prices) == pytest.approx((100 * 10 + 10 * 100 + 150 * 1 + 50 * 0.1 + 20 * 2) / 1e6)
    summary = summarize([stats_of(made, prices)], ["rlm"])
    table = {row[0].strip(): row[1:] for row in scaffold_table(summary, "x").rows}
    assert table["sub-calls (failed)"] == ["2.0 (1.0)"]
    assert table["cost, US$"] == ["0.0022"]


def test_an_scaffold_with_nothing_yet_is_a_column_of_dashes():
    summary = summarize([], ["standard", "rlm"])
    table = {row[0].strip(): row[1:] for row in scaffold_table(summary, "x").rows}
    assert table["over rollouts (tasks)"] == ["0 (0)", "0 (0)"]
    assert table["rollouts: error"] == ["0", "0"]
    assert "seconds" not in table
    print_report(Console(file=io.StringIO()), summary, "x")


def test_terminal_and_markdown_tell_the_same():
    summary = summary_of(rollout("standard", 1), overflow(2), rollout("rlm", 1), rollout("rlm", 2, score=0.5))
    printed = io.StringIO()
    print_report(Console(file=printed, width=120), summary, "word-count, stub")
    markdown = markdown_report(summary, "word-count, stub")
    for row in [*scaffold_table(summary, "").rows, *length_table(summary).rows]:
        for cell in row:
            assert cell.strip() in printed.getvalue()
            assert cell.strip() in markdown


def test_many_scaffolds_are_wrapped_and_never_cut_off():
    scaffolds = ("standard", "rlm", "rlm-tips", "rlm-nosub", "summary")
    summary = summary_of(*(rollout(scaffold, task, score=0.25) for scaffold in scaffolds for task in (1, 2)))
    printed = io.StringIO()
    print_report(Console(file=printed, width=80), summary, "x")
    of_scaffolds, _, _ = printed.getvalue().partition("By context length")
    assert "…" not in of_scaffolds


def test_markup_in_a_name_is_text():
    printed = io.StringIO()
    made = rollout("rlm", 1, score=None, stop="error", error="[red]not markup[/nothing]")
    print_report(Console(file=printed, width=120), summary_of(made), "[bold]x")
    assert "[red]not markup[/nothing]" in printed.getvalue()


def test_a_pipe_in_a_cell_does_not_break_markdown():
    made = rollout("a|b", 1)
    header = markdown_report(summary_of(made), "x").splitlines()[2]
    assert header == "|  | a\\|b |"


def test_several_comparisons_are_corrected_and_one_is_not():
    scores = {"standard": 0.0, "rlm": 1.0, "rlm-tips": 1.0}
    rollouts = [rollout(name, task, score=score) for name, score in scores.items() for task in range(8)]
    first, second = summary_of(*rollouts).comparisons
    assert first.p == second.p == first.mcnemar.p == pytest.approx(2 / 2**8)
    assert first.p_holm == second.p_holm == pytest.approx(2 * first.p)
    table = {row[0].strip(): row[1:] for row in scaffold_table(summary_of(*rollouts), "x").rows}
    assert table["p, corrected for 2 comparisons (Holm)"] == ["-", "0.016", "0.016"]
    two = summary_of(*(one for one in rollouts if one.scaffold != "rlm-tips"))
    assert two.comparisons[0].p_holm == first.p
    assert not any("Holm" in row[0] for row in scaffold_table(two, "x").rows)


def test_scores_between_right_and_wrong_have_a_p_too():
    graded = summary_of(*(rollout(name, task, score=s) for name, s in (("a", 0.25), ("b", 0.5)) for task in range(9)))
    assert graded.comparisons[0].mcnemar is None
    assert graded.comparisons[0].p == pytest.approx(2 / 2**9, abs=0.002)
    table = {row[0].strip(): row[1:] for row in scaffold_table(graded, "x").rows}
    assert table["p (sign-flip test)"][1].startswith("0.00")


def programs(*codes: str, **fields):
    turns = [Turn(code=[code], usage=Usage(100, 10, 0, 1)) for code in codes]
    return rollout("rlm", fields.pop("task", 1), turns=turns, metrics={"cells": len(codes)}, **fields)


def test_programs_are_counted_with_their_scores_and_costs():
    summary = summary_of(
        programs("print(context[:9])", "answer['content'] = '7'", task=1, score=0.0),
        programs("import re; print(len(re.findall('a', context)))", task=2),
        programs("answer['content'] = context.count('a')", task=3),
        programs("answer['content'] = context.count('a')", task=4, score=None, stop="error"),
        rollout("standard", 1),
    )
    code, read = summary.programs
    assert (code.program, code.rollouts, code.score.mean, code.tokens, code.seconds) == ("code alone", 2, 1.0, 110, 2.0)
    assert (read.program, read.rollouts, read.score.mean) == ("reads it itself", 1, 0.0)
    assert [row[:4] for row in program_table(summary).rows] == [
        ["rlm", "code alone", "2", "67%"],
        ["", "reads it itself", "1", "33%"],
    ]
    assert trait_table(summary).rows == [
        ["uses regular expressions", "33%"],
        ["prints pieces of the context", "33%"],
    ]


def test_sub_calls_are_counted_in_powers_of_two():
    assert count_bins([0, 0]) == count_bins([]) == []
    assert count_bins([0, 1, 1, 5]) == [CountBin(0, 0, 1), CountBin(1, 1, 2), CountBin(2, 3, 0), CountBin(4, 7, 1)]
    calls = [[SubCall(id=n, root_turn=0, batch=0, messages=[]) for n in range(count)] for count in (0, 1, 3)]
    made = [rollout("rlm", task, sub_calls=some) for task, some in enumerate(calls)]
    assert sub_call_table(summary_of(*made, rollout("standard", 1))).rows == [["0", "1"], ["1", "1"], ["2 to 3", "1"]]


def test_costs_stand_against_context_length_and_unknown_money_is_no_zero():
    prices = (Price(prompt=10.0, completion=100.0), Price(prompt=1.0, completion=2.0))
    made = [rollout("rlm", task, sub_usage=Usage(200, 20, 0, 2)) for task in (1, 2)]
    paid = summarize([stats_of(one, prices) for one in made], ["rlm"])
    assert cost_table(paid).rows[0] == ["512", "rlm", "1.00", "110", "220", "0.0", "2.00", "0.00224"]
    unknown = summary_of(*made, overflow(2))
    assert {row[-1] for row in cost_table(unknown).rows} == {"-"}
    assert cost_table(unknown).rows[-1][3:7] == ["-", "-", "-", "-"]
    assert "No prices are known" in markdown_report(unknown, "x")
    assert "No prices are known" not in markdown_report(paid, "x")


def notes_of(*rollouts: Rollout) -> str:
    return "\n".join(report_notes(summary_of(*rollouts)))


def both(scores: dict[str, list[float]]) -> list[Rollout]:
    return [rollout(name, task, score=value) for name, values in scores.items() for task, value in enumerate(values)]


def test_each_word_of_statistics_in_the_tables_is_explained_below_them_and_only_those():
    one = notes_of(*both({"standard": [0.0] * 24, "rlm": [1.0] * 12 + [0.0] * 12}))
    assert "McNemar's exact test, as every score is 0 or 1" in one
    assert "Right alone, wrong alone:" in one
    assert "Tasks needed (power 0.8):" in one
    assert 'docs/reports.md, "Intervals and tests"' in one
    assert "Few tasks (down to 12): p is exact" in one  # in the rows of a context length
    assert "no difference has a p below 0.05" not in one
    for word in ("Holm", "sign-flip", "pass@k"):
        assert word not in one
    two = notes_of(*both({"standard": [0.5] * 40, "rlm": [0.7] * 40, "summary": [0.25] * 40}))
    assert "by a sign-flip test, as not every score is 0 or 1" in two
    assert "Holm: of 2 comparisons" in two
    assert "Few tasks" not in two
    assert "Right alone" not in two
    repeated = notes_of(*(rollout("rlm", task, repeat=n) for task in range(40) for n in range(2)))
    assert "pass@k: the chance" in repeated
    for word in ("Holm", "p, two-sided", "power"):
        assert word not in repeated


def test_at_four_tasks_a_report_says_that_p_is_the_one_to_go_by():
    rollouts = both({"standard": [0.1, 0.2, 0.1, 0.0], "rlm": [0.6, 0.8, 0.8, 0.4]})
    [comparison] = summary_of(*rollouts).comparisons
    assert comparison.difference.low > 0.0
    assert comparison.p > 0.1  # the smallest that four tasks can give
    notes = notes_of(*rollouts)
    assert "Few tasks (down to 2)" in notes
    assert "go by p" in notes
    assert "With fewer than 6 tasks no difference has a p below 0.05" in notes
    alone = notes_of(*both({"rlm": [0.6, 0.8, 0.8, 0.4]}))
    assert "Few tasks" in alone
    assert "go by p" not in alone


def test_the_page_explains_the_words_of_the_tables(request):
    page = (request.config.rootpath / "docs" / "reports.md").read_text().partition("## Intervals and tests")[2]
    page = page.partition("\n## ")[0]
    for word in ("McNemar", "Holm", "power 0.8", "pass@k", "majority vote", "right alone, wrong alone", "e-value"):
        assert word in page
    assert f"below {LEAST_TASKS} tasks" in page
    assert PAGE == 'docs/reports.md, "Intervals and tests"'
