"""Refusals of key, model and account, and when so many have come that a run should stop."""

from __future__ import annotations

import re
from collections import Counter

from rlm_env.llm.base import EngineRefused, LLMError
from rlm_env.llm.http import EndpointError
from rlm_env.llm.retries import QUOTA, is_passing

STOP_AFTER = 3
"""Refusals of key, model or account, with no success between them, until requests raise EngineRefused."""
STOP_AFTER_OTHERS = 8
"""Equal refusals of any other kind, where no request has ever succeeded."""
MODERATION = re.compile(
    r"moderat|flagged|content[_ ](?:policy|filter|management)|safety|guardrail|inappropriate|high risk|sensitive"
    r"|prohibited|usage (?:guidelines|policy|policies)|data_inspection|敏感",
    re.I,
)
MODEL = re.compile(
    r"\b(?:model|deployment)\b[^.]{0,120}"
    r"(?:not exist|not found|not supported|unknown|no(?:t| longer) available|invalid|not a valid|not served)"
    r"|model[_ ]not[_ ]found|(?:unknown|invalid|no such|not found|not a valid)[^.]{0,30}\bmodel\b|no endpoints found"
    r"|no models? (?:is |are )?loaded|(?:access to|to use) (?:the|this) model",
    re.IGNORECASE,
)
KEY = re.compile(r"api[_ -]?key|authenticat|unauthori[sz]ed|credential|access token|permission", re.I)
REMEDIES = {
    "api_key": "check the API key and the environment variable that holds it",
    "quota": "the account has no credit or quota left",
    "model": "check the name of the model",
    "base_url": "check base_url; most endpoints want it to end in /v1",
}


class Refusals:
    """Counts the refusals of one client."""

    def __init__(self) -> None:
        self._in_a_row: Counter[str] = Counter()
        self._succeeded = False

    def success(self) -> None:
        """Call after each reply."""
        self._succeeded = True
        self._in_a_row.clear()

    def judged(self, error: EndpointError) -> LLMError:
        """The error to raise: the given one, or EngineRefused once it has come too often."""
        field = refused_field(error)
        if field is not None:
            kind, most = field, STOP_AFTER
        elif error.status in (400, 403, 404, 405, 422) and not self._succeeded and not _is_moderation(error):
            kind, most = re.sub(r"\d+", "0", error.detail), STOP_AFTER_OTHERS
        else:
            return error
        self._in_a_row[kind] += 1
        return engine_refused(error) if self._in_a_row[kind] >= most else error


def engine_refused(error: EndpointError) -> EngineRefused:
    """An error that names the option to correct."""
    field = refused_field(error)
    remedy = f" ({field}: {REMEDIES[field]})" if field else ""
    return EngineRefused(f"{error}{remedy}", field)


def refused_field(error: EndpointError) -> str | None:
    """The option that a refusal is about: `api_key`, `model`, `quota` or `base_url`; None for any other error."""
    words = f"{error.detail} . {error.body.words} . {error.body.code}"
    status = error.status
    if status == 402 or (status in (400, 403, 429) and QUOTA.search(words) and not is_passing(status, words)):
        return "quota"
    if 300 <= status < 400:
        return "base_url"
    if status == 401:
        return "api_key"
    if status == 403 and not _is_moderation(error):
        return "model" if MODEL.search(words) and not KEY.search(error.detail) else "api_key"
    if status == 400 and re.search(r"(?:invalid|incorrect|missing)[_ ]api[_ ]key|api key not valid", words, re.I):
        return "api_key"
    if status in (400, 404, 422) and MODEL.search(words) and (status == 404 or error.body.param in ("", "model")):
        return "model" if status == 404 or _is_about_model(words) else None
    return "base_url" if status in (404, 405) else None


def _is_about_model(words: str) -> bool:
    """Whether a 400 is about the model's name, and not about a parameter that the model does not take."""
    return bool(
        re.search(
            r"model[_ ]not[_ ]found|not a valid model|(?:unknown|invalid|no such) model\b"
            r"|\bmodel\b[^.]{0,120}(?:not exist|not found|no longer available|unknown|not supported by any)"
            r"|no models? (?:is |are )?loaded",
            words,
            re.IGNORECASE,
        )
    )


def _is_moderation(error: EndpointError) -> bool:
    """True where a filter refused the content, not the account."""
    return bool(MODERATION.search(f"{error.detail} . {error.body.words}"))
