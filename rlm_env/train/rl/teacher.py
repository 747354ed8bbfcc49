"""The teacher of on-policy distillation: a vLLM that is asked how likely it finds what the policy sampled.

The samples of a step are sent as token ids to `/v1/completions` with `prompt_logprobs`, which vLLM answers at
temperature 1 for every token of a prompt; equal samples are asked once. What was answered is on disk at once, so that a
run that is killed, or whose teacher is gone, asks again only for the rest. Not covered: that the teacher's tokenizer is
the policy's (`rlm_env/train/sync/same_tokenizer.py`), what becomes of the answers (`distilled_advantages` in
`rlm_env/train/learner/loss.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlm_env.lines import parse_record
from rlm_env.llm.base import LLMError
from rlm_env.llm.http import Endpoint, EndpointError
from rlm_env.llm.retries import is_passing
from rlm_env.llm.token_batches import NEUTRAL_SAMPLING, ROUNDING
from rlm_env.llm.vllm.install import VLLMStartError, is_cpu_build
from rlm_env.runs.errors import ConfigError, RunStopped
from rlm_env.runs.folder import plain
from rlm_env.runs.jsonl import NEVER, JsonLog, read_jsonl
from rlm_env.runs.models import resolve_folder, resolve_model
from rlm_env.runs.options import EngineOptions
from rlm_env.runs.record import describe_model
from rlm_env.train.learner.samples import Sample
from rlm_env.train.rl.rollouts import all_of
from rlm_env.train.rl.teacher_config import TeacherConfig
from rlm_env.train.run_files import TEACHER
from rlm_env.train.sync.same_tokenizer import require_same_tokenizer, require_same_vocabulary

if TYPE_CHECKING:
    from rlm_env.llm.vllm.server import Progress, VLLMServer

LOWEST = -20.0
"""A token that the teacher finds less likely than e to this power counts as that likely, so that one token cannot
outweigh a step; vLLM reports -9999 for what cannot be sampled."""
REQUEST_SAMPLES = 64
"""Most samples in one request."""
REQUEST_TOKENS = 16_384
"""Most tokens in one request, unless one sample has more."""
LONGEST_PAUSE = 30.0
"""Upper limit of the seconds between two tries."""
SAME_FAMILY = "take a teacher of the same family"
"""The remedy where its tokenizer is not the policy's."""
NICENESS = 10
"""Of a teacher on the CPU: the trainer goes first, as before the policy's engine."""


@dataclass(slots=True)
class Teacher:
    """An open teacher. `read` gives samples its log-probabilities.

    `server`: the local vLLM behind it, if it was started here; it is started again when it dies.
    """

    config: TeacherConfig
    endpoint: Endpoint
    model: str
    """Its name at the endpoint."""
    window: int
    """Tokens of its context window."""
    log: JsonLog
    known: dict[str, list[float]] = field(default_factory=dict)
    """Answers of steps that are not trained yet, by `_key`: the log-probabilities of a sample's trained tokens."""
    server: VLLMServer | None = None
    _restarting: asyncio.Lock = field(default_factory=asyncio.Lock)

    def describe(self) -> dict[str, Any]:
        """For the record of the run: its name, of a local one the hash of its files, and its window."""
        ref = resolve_model(self.config.model, self.config.base_url)
        return plain({**describe_model(ref), "window": self.window})

    async def read(self, step: int, samples: Sequence[Sample]) -> dict[str, float]:
        """Gives every sample of a step `teacher_logprobs` and `teacher_weight`; returns metrics: `teacher/tokens`, the
        tokens that it was asked for, `teacher/samples`, and `seconds/teacher`.

        Raises RunStopped where the teacher refuses, or does not answer for `patience` seconds.
        """
        begun = time.monotonic()
        missing = {key: sample for sample in samples if (key := _key(sample)) not in self.known}
        slots = asyncio.Semaphore(self.config.concurrency)

        async def ask(part: list[tuple[str, Sample]]) -> None:
            async with slots:
                for key, logprobs in zip((key for key, _ in part), await self._ask([s for _, s in part]), strict=True):
                    self.log.append({"step": step, "sample": key, "logprobs": logprobs})
                    self.known[key] = logprobs

        await all_of(*(ask(part) for part in _requests(missing.items(), self.window)))
        self.log.sync()
        for sample in samples:
            found = iter(self.known[_key(sample)])
            sample.teacher_logprobs = [next(found) if trained else 0.0 for trained in sample.mask]
            sample.teacher_weight = self.config.weight
        self.known.clear()
        return {
            "teacher/tokens": float(sum(map(len, missing.values()))),
            "teacher/samples": float(len(missing)),
            "seconds/teacher": time.monotonic() - begun,
        }

    async def _ask(self, samples: list[Sample]) -> list[list[float]]:
        """The log-probabilities of the trained tokens of each sample, in one request.

        vLLM wants room for one token behind a prompt. The last token of a sample that fills the window is therefore not
        part of the prompt; how likely it is as the next one is asked instead.
        """
        ids = [sample.token_ids for sample in samples]
        body: dict[str, Any] = {"prompt": ids, "max_tokens": 1, "prompt_logprobs": 0}
        full = len(samples) == 1 and len(ids[0]) >= self.window
        if full:
            last = {"logprobs": 0, "logprob_token_ids": [ids[0][-1]], "return_tokens_as_token_ids": True}
            body |= {"prompt": [ids[0][:-1]], **last}
        reply = await self._post(body)
        try:
            choices = sorted(reply["choices"], key=lambda choice: choice["index"])
            if [choice["index"] for choice in choices] != list(range(len(samples))):
                raise ValueError("not one choice for each prompt")
            found = [
                _prompt_logprobs(choice["prompt_logprobs"], tokens) for choice, tokens in zip(choices, ids, strict=True)
            ]
            if full:
                found[0].append(choices[0]["logprobs"]["top_logprobs"][0][f"token_id:{ids[0][-1]}"])
            return [
                [_bounded(values[place]) for place, trained in enumerate(sample.mask) if trained]
                for sample, values in zip(samples, found, strict=True)
            ]
        except (LookupError, TypeError, ValueError, AttributeError):
            raise RunStopped(
                "teacher unusable",
                f"{self.endpoint.public_url} sent no log-probability for each of the token ids that it was given: the "
                "teacher must be a vLLM, and its weights finite",
                3,
            ) from None

    async def _post(self, body: Mapping[str, Any]) -> Any:
        """The reply to a request, which is sent again while the teacher does not answer."""
        clock = asyncio.get_running_loop()
        deadline, pause = clock.time() + self.config.patience, 1.0
        whole = {"model": self.model, "temperature": 1.0, "top_p": 1.0, **NEUTRAL_SAMPLING, **body}
        while True:
            try:
                return await self.endpoint.post("/completions", whole)
            except LLMError as error:
                if isinstance(error, EndpointError) and not is_passing(error.status, error.body.words):
                    raise RunStopped("teacher refuses", f"teacher: {error}", 3) from error
                if clock.time() >= deadline:
                    raise RunStopped(
                        "teacher unavailable",
                        f"teacher: {error}. Rollouts and answers so far are on disk; when it is back, --resume goes on",
                        3,
                    ) from error
            await self._revive()
            await asyncio.sleep(min(pause, LONGEST_PAUSE, max(0.0, deadline - clock.time())))
            pause *= 2

    async def _revive(self) -> None:
        """Starts a dead vLLM of ours again, once for all who wait for it."""
        if self.server is None:
            return
        async with self._restarting:
            if not self.server.alive:
                try:
                    await self.server.__aenter__()
                except VLLMStartError as error:
                    raise RunStopped("teacher unavailable", f"teacher: {error}", 3) from error


def check_teacher(config: TeacherConfig | None, student: Path) -> None:
    """What can be checked without an engine: the key of an endpoint; of a local model, that it is there and has the
    tokenizer of the policy in `student`. Raises ConfigError."""
    if config is None:
        return
    config.key()
    if config.base_url is None:
        try:
            require_same_vocabulary(resolve_folder(config.model), student, config.model, SAME_FAMILY)
        except ConfigError as error:
            raise ConfigError(f"teacher.model: {error}") from error


@contextlib.asynccontextmanager
async def open_teacher(
    config: TeacherConfig,
    student: Path,
    folder: Path,
    trained: int,
    longest: int | None,
    seed: int = 0,
    progress: Progress | None = None,
) -> AsyncIterator[Teacher]:
    """Connects to the teacher, or starts its vLLM, and checks that it has the policy's tokenizer.

    `student`: the policy's model folder. `folder`: that of the run, with the answers so far; those of steps up to
    `trained` are not needed any more. `longest`: tokens of the policy's window, which the teacher's must not be below.
    Raises ConfigError where the teacher cannot teach this policy, RunStopped where it does not answer or start.
    """
    async with contextlib.AsyncExitStack() as stack:
        server = None
        if config.base_url is None:
            server = await _start(stack, config, folder, seed, progress)
        url = server.base_url if server is not None else config.base_url or ""
        key = config.key()
        endpoint = Endpoint(
            url,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            concurrency=config.concurrency,
            timeout=config.timeout,
            secret=key,
        )
        stack.push_async_callback(endpoint.aclose)
        root = endpoint.beside(url.removesuffix("/v1"))
        stack.push_async_callback(root.aclose)
        name = server.served_name if server is not None else config.model
        try:
            window = await _window(endpoint, name)
            await require_same_tokenizer(root, name, student, "the teacher", SAME_FAMILY)
        except EndpointError as error:
            raise ConfigError(f"teacher: {error}") from error
        except LLMError as error:
            raise RunStopped("teacher unavailable", f"teacher: {error}", 3) from error
        if longest is not None and window < longest:
            raise ConfigError(
                f"teacher: its window of {window:,} tokens is below the policy's of {longest:,}, so that long samples "
                "could not be asked: serve it with more (--max-model-len, or teacher.server.max_model_len), or lower "
                "engine.max_model_len"
            )
        log = stack.enter_context(JsonLog(folder / TEACHER, fsync_seconds=NEVER))
        answers = read_jsonl(log.path, _read_answer)
        known = {sample: logprobs for step, sample, logprobs in answers if step > trained}
        yield Teacher(config, endpoint, name, window, log, known, server)


async def _start(
    stack: contextlib.AsyncExitStack, config: TeacherConfig, folder: Path, seed: int, progress: Progress | None
) -> VLLMServer:
    """The local vLLM. Raises ConfigError for an unknown model, RunStopped where it does not start."""
    from rlm_env.llm.vllm.server import VLLMServer

    server = VLLMServer(
        resolve_folder(config.model),
        served_name="teacher",
        seed=seed,
        log_path=folder / "vllm-teacher.log",
        niceness=NICENESS if is_cpu_build() else 0,
        progress=progress,
        **config.server.model_dump(include=set(EngineOptions.model_fields)),
    )
    try:
        return await stack.enter_async_context(server)
    except VLLMStartError as error:
        raise RunStopped("teacher unavailable", f"teacher: {error}", 3) from error


def _read_answer(line: str) -> tuple[int, str, list[float]]:
    """Step, sample and log-probabilities of a stored answer."""
    values = parse_record(line)
    return int(values["step"]), str(values["sample"]), [float(value) for value in values["logprobs"]]


async def _window(endpoint: Endpoint, model: str) -> int:
    """The context window of a model behind an endpoint. Raises ConfigError where it serves no such model."""
    try:
        cards = {card["id"]: card for card in (await endpoint.get("/models"))["data"]}
    except (LookupError, TypeError):
        raise ConfigError(f"teacher: {endpoint.public_url} sent a list of models of unknown shape") from None
    if model not in cards:
        raise ConfigError(f"teacher.model: {endpoint.public_url} serves no {model!r}; it serves {', '.join(cards)}")
    window = cards[model].get("max_model_len")
    if not isinstance(window, int):
        raise ConfigError(f"teacher: {endpoint.public_url} does not tell the window of {model}: it must be a vLLM")
    return window


def _requests(samples: Iterable[tuple[str, Sample]], window: int) -> list[list[tuple[str, Sample]]]:
    """Samples by request; one that fills the window is alone."""
    parts: list[list[tuple[str, Sample]]] = []
    room = 0
    for key, sample in samples:
        size = len(sample)
        if size >= window:
            parts.insert(0, [(key, sample)])
        elif parts and room >= size and len(parts[-1]) < REQUEST_SAMPLES:
            parts[-1].append((key, sample))
            room -= size
        else:
            parts.append([(key, sample)])
            room = REQUEST_TOKENS - size
    return parts


def _prompt_logprobs(found: Sequence[Mapping[str, Any] | None], ids: Sequence[int]) -> list[float]:
    """By place; the first token, which nothing predicts, has 0."""
    values = [0.0]
    for token, entry in zip(ids[1:], found[1:], strict=False):
        values.append((entry or {})[str(token)]["logprob"])
    return values


def _bounded(logprob: Any) -> float:
    """As it is used and stored: in the seven digits that float32 has. Raises ValueError for what is none."""
    if type(logprob) not in (int, float) or not logprob <= ROUNDING:
        raise ValueError(f"{logprob!r} is no log-probability")
    return float(f"{min(0.0, max(logprob, LOWEST)):.7g}")


def _key(sample: Sample) -> str:
    """The same for samples with the same tokens, of which the same are trained."""
    digest = hashlib.sha256(repr(sample.token_ids).encode())
    digest.update(bytes(sample.mask))
    return digest.hexdigest()[:32]
