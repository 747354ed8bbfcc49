"""`evaluate`: an eval from Python, with the tables, the folder and the statistics of `rlm-env eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlm_env.blocking import run_blocking
from rlm_env.environment import Environment, environment_name
from rlm_env.evals.config import load_eval_config
from rlm_env.evals.hooks import Hooks
from rlm_env.evals.matrix import MatrixResult, run_any, stored_result
from rlm_env.evals.matrix_report import markdown_matrix
from rlm_env.evals.report import markdown_report
from rlm_env.evals.stored import EvalResult
from rlm_env.evals.summary import EvalSummary
from rlm_env.events import OnEvent
from rlm_env.rollout import Rollout
from rlm_env.runs.errors import ConfigError
from rlm_env.runs.folder import RESULTS, ROLLOUTS, latest_rollouts
from rlm_env.runs.jsonl import read_jsonl

if TYPE_CHECKING:
    import pandas

Environments = str | Environment | Sequence[str | Environment]


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """An eval that has ended, or one that lies on disk. In a notebook it shows its tables."""

    result: EvalResult | MatrixResult

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """The eval in a folder, as far as it went. Raises ConfigError if there is none."""
        return cls(stored_result(Path(folder)))

    def __repr__(self) -> str:
        scores = [
            f"{label} {one.scaffold} {'no score' if one.score is None else f'{one.score.mean:.3f}'}"
            for label, summary in self.summaries.items()
            for one in summary.scaffolds
        ]
        return f"<Evaluation {str(self.path)!r}: {', '.join([self.status, *scores])}>"

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self.result.path

    @property
    def status(self) -> str:
        """`complete`, or why it is not."""
        return self.result.status

    @property
    def summaries(self) -> dict[str, EvalSummary]:
        """All numbers, by environment."""
        return self.result.summaries

    def score(self, scaffold: str, environment: str | None = None) -> float | None:
        """The mean score of a scaffold; None where nothing was scored. `environment`: its label, where there are
        several. Raises KeyError."""
        if environment is None:
            if len(self.summaries) > 1:
                raise KeyError(f"name one of the environments: {', '.join(self.summaries)}")
            (environment,) = self.summaries
        found = {one.scaffold: one.score for one in self.summaries[environment].scaffolds}
        estimate = found[scaffold]
        return None if estimate is None else estimate.mean

    def results(self) -> list[dict[str, Any]]:
        """One flat record per rollout, as in results.jsonl, and the `environment` where there are several."""
        if isinstance(self.result, EvalResult):
            return _read_results(self.path)
        return [
            {"environment": label, **record} for label in self.summaries for record in _read_results(self.path / label)
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """`results` as a data frame. Raises ModuleNotFoundError without pandas."""
        import pandas

        return pandas.DataFrame(self.results())

    def rollouts(self) -> Iterator[Rollout]:
        """The rollouts with all their prompts, replies and tokens, read from the disk one by one. Of one that was made
        again because it had failed, the last."""
        folders = [self.path] if isinstance(self.result, EvalResult) else [self.path / name for name in self.summaries]
        for folder in folders:
            yield from latest_rollouts(folder / ROLLOUTS)

    def to_markdown(self) -> str:
        """The tables that `rlm-env eval` prints."""
        if isinstance(self.result, EvalResult):
            return markdown_report(self.result.summary, self.result.title)
        return markdown_matrix(self.result.summaries, self.result.title)

    _repr_markdown_ = to_markdown


async def evaluate(
    environments: Environments,
    *,
    model: str | None = None,
    base_url: str | None = None,
    api_key_env: str | None = None,
    scaffolds: Sequence[str] | str = ("standard", "rlm"),
    n: int = 32,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    on_rollout: Callable[[Rollout], None] | None = None,
    on_event: OnEvent | None = None,
    **keys: Any,
) -> Evaluation:
    """Runs scaffolds on the same `n` tasks of each environment, as `rlm-env eval` does, into the same kind of folder.

    `environments`: names, or objects of your own. `model` at `base_url`, an OpenAI-compatible endpoint whose key is in
    the environment variable `api_key_env`; without `base_url` a local vLLM is started with the model folder `model`.
    `keys`: further keys of a config file, for example `repeats=2, rollout={"max_turns": 8}`.
    `on_rollout` is called with each rollout when it is scored and stored, `on_event` with what happens in them.
    `progress`: show it on standard error. `out`: the folder; default: a new one in the folder outputs.

    Raises ConfigError for a mistake in what was asked for and RunStopped where an engine gives up; rollouts that had
    ended by then are on disk, and `resume=True` goes on with them.
    """
    given = [environments] if isinstance(environments, str | Environment) else list(environments)
    objects = {environment_name(one): one for one in given if isinstance(one, Environment)}
    names = [one if isinstance(one, str) else environment_name(one) for one in given]
    if objects and (unused := keys.keys() & {"options"}):
        raise ConfigError(f"{unused.pop()} are for environments that are named; make the object with them")
    values = {
        **{"model": model, "base_url": base_url, "api_key_env": api_key_env, "out": out},
        **{"scaffolds": scaffolds, "n": n, "environments": [{"name": name} for name in names], **keys},
    }
    values = {key: value for key, value in values.items() if value is not None}
    config = load_eval_config(None, values, None if resume else datetime.now().strftime("%Y%m%d-%H%M%S"))
    console = Console(stderr=True, quiet=not progress)
    result = await run_any(config, console, resume=resume, hooks=Hooks(objects, on_rollout, on_event))
    return Evaluation(result)


def evaluate_sync(environments: Environments, **options: Any) -> Evaluation:
    """`evaluate` without `await`, with the same options; in a notebook too, where an event loop is running already."""
    return run_blocking(evaluate(environments, **options))


def _read_results(folder: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / RESULTS))
