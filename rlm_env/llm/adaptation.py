"""What an endpoint refuses of a request, read from its refusals: it is left out or sent otherwise from then on.

Each adaptation is kept for all later requests, and told in a sentence for the record of a run. A value that is out of
the endpoint's range is not adapted to: that is the user's mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from rlm_env.llm.history import HistoryRules
from rlm_env.llm.http import EndpointError

REFUSALS = frozenset({400, 404, 405, 413, 415, 422, 500, 501})
"""Statuses of replies that may be about a part of the request. Some servers send 500 for it."""
NEVER_LEFT_OUT = frozenset({"model", "messages", "max_tokens", "max_completion_tokens", "stream", "tools"})
FIRST_LEFT_OUT = ("top_p", "top_k", "min_p")
"""Of two parameters that cannot go together, one of these goes."""
SHORT_NAMES = frozenset({"n", "stop", "user", "seed"})
"""Names that are words too: they count only in quotation marks, or as the parameter that the error names."""

CAMEL = re.compile(r"\b[a-z]+(?:[A-Z][a-z]*)+\b")
UNSUPPORTED = re.compile(
    r"unsupported|not? support|n't support|does not allow|not (?:allowed|permitted|available|accepted|compatible)"
    r"|unknown|unrecogni[sz]ed|unexpected|extra[_ ](?:fields?|inputs?|forbidden)|deprecated|only the default"
    r"|only [^.]{0,30}(?:allowed|supported)|cannot both|cannot (?:be )?(?:use|specif|set|combin)|incompatible"
    r"|cannot find|no longer|mutually exclusive|fixed",
    re.IGNORECASE,
)
OUT_OF_RANGE = re.compile(
    r"between|at (?:most|least)|(?:less|greater|larger|smaller|lower|higher) than|\brange\b|[<>]=?|≤|≥|in \[|exceeds?\b"
    r"|maximum|minimum",
    re.IGNORECASE,
)
POSITIVE = re.compile(r"strictly positive|greater than 0|> ?0|must be positive|larger than 0", re.IGNORECASE)
UNTOLD = "its replies do not tell how many tokens they took, so that tokens and money are unknown"
SMALLEST_TEMPERATURE = 0.01
"""In place of 0, where an endpoint wants a positive number."""
TOGETHER = re.compile(
    r"\bboth\b|together|mutually exclusive|simultaneously|at the same time|only one of", re.IGNORECASE
)

NO_TOOLS = re.compile(
    r"(?:not|n't|without|no) (?:\w+ ){0,3}(?:support(?:s|ed|ing)? )?(?:for )?(?:\w+ ){0,2}(?:tools?|functions?)\b"
    r"(?! (?:with|named|call id))"
    r"|(?:tools?|functions?)(?: call\w*| use| choice)?[`'\" ]* (?:\w+ ){0,3}(?:unsupported"
    r"|(?:not|n't) (?:currently |yet |been )?(?:be )?"
    r"(?:support|available|enabled|allowed|permitted|implemented|accepted))"
    r"|tool[ _]choice[^.]{0,20}requires|enable-auto-tool-choice|tool-call-parser|tools? param requires|--jinja"
    r"|support tool use|unsupported[^.]{0,30}\btools\b|(?:unknown|unrecogni[sz]ed|unexpected|extra)[^.]{0,60}\btools\b"
    r"|\btools\b[^.]{0,60}(?:not permitted|not allowed|forbidden|unsupported|extra inputs)",
    re.IGNORECASE,
)
NOT_ABOUT_TOOLS = re.compile(
    r"tool_call_id|tool message|role 'tool'|role \"tool\"|must be followed by|messages?\W*[\[.]\d|pars(?:e|ing)\b"
    r"|tool[- ]?calls? (?:at once|per)",
    re.IGNORECASE,
)
NO_SYSTEM = re.compile(
    r"(?:system|developer)[`'\" ]*(?:role|message|prompt|instruction)s?\b"
    r"[^.]{0,60}(?:not|n't|unsupported|unknown|unexpected)"
    r"|role[`'\": ]*system[`'\" ]*[^.]{0,40}(?:not|n't|unsupported|invalid)"
    r"|(?:not|n't|unsupported|unknown)[^.]{0,60}['\"`]?(?:system|developer)['\"`]? "
    r"(?:role|message|prompt|instruction)s?"
    r"|role['\"`\]]* does not support ['\"`]?(?:system|developer)|developer instruction is not enabled"
    r"|only user(?:,| and) assistant[^.]{0,20} roles (?:are|is) supported",
    re.IGNORECASE,
)
ALTERNATE = re.compile(
    r"roles? must alternate|alternat\w+[^.]{0,60}(?:user|assistant|role)|consecutive[^.]{0,40}(?:role|messages)", re.I
)
EMPTY_TEXT = re.compile(
    r"(?:content|text|message)s?\b[^.]{0,80}(?:empty|blank|non-?whitespace|must have|at least 1 char|too short)"
    r"|(?:empty|blank|non-?whitespace)[^.]{0,40}(?:content|text|message)",
    re.IGNORECASE,
)
REASONING_FIELD = re.compile(r"\b(reasoning_content|reasoning_details|reasoning|thinking_blocks)\b")
DEMANDED = re.compile(
    r"missing|required|must be (?:passed|provided|included|present|set)|must (?:contain|have|include)|need", re.I
)
ONE_CALL = re.compile(
    r"(?:single|one) tool[- ]?calls?\b[^.]{0,20}(?:at (?:once|a time)|per (?:message|turn))"
    r"|(?:multiple|parallel|more than one) tool[- ]?calls?[^.]{0,40}(?:not|n't|unsupported)",
    re.IGNORECASE,
)
NINE_LETTERS = re.compile(r"tool[ _]call[ _]id[^.]{0,120}length of 9", re.IGNORECASE)
NO_STREAM = re.compile(
    r"verified to stream|stream\w*[`'\": ]*[^.]{0,40}(?:not|n't|unsupported|disabled)(?! (?:sent|set))", re.IGNORECASE
)
STREAM_ONLY = re.compile(
    r"stream\W{0,3}(?:=|must be|should be|to be|set to)?\W{0,3}true|only supports? stream|must (?:use |be )?stream"
    r"|stream(?:ing)? (?:mode )?(?:is )?required|non-?stream\w*[^.]{0,60}(?:not|n't|unsupported)|enable the stream"
    r"|false for non-?stream|streaming is (?:strongly )?re(?:quired|commended)",
    re.IGNORECASE,
)
FIELD_OF_MESSAGE = re.compile(
    r"messages?\W+\d+\W+(?:[\w]+\W+)*?([a-z_]+)['\"`\]]*[^a-z_]|property ['\"`]([a-z_]+)['\"`]", re.I
)


class Adaptations:
    """What has been learned of one endpoint."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        """One for each adaptation, in order."""
        self.history = HistoryRules()
        self.limit_field: str | None = "max_tokens"
        """The field for the limit of output tokens; None where no limit is taken."""
        self.most_output: int | None = None
        """The largest limit that the endpoint takes."""
        self.tools_refused: str | None = None
        """Why it takes no tools."""
        self.stream = False
        """Replies are streamed."""
        self._left_out: set[str] = set()
        self._least_temperature = 0.0

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request without what is refused."""
        sent = {name: value for name, value in body.items() if name not in self._left_out}
        if "temperature" in sent and isinstance(sent["temperature"], int | float):
            sent["temperature"] = max(sent["temperature"], self._least_temperature)
        return sent

    def learn(self, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """Adapts to the refusal of a request. Returns True if it is worth sending again."""
        if error.status not in REFUSALS:
            return False
        words = f"{error.body.param} . {error.detail} . {error.body.words}"
        return self._learn_parameter(words, error, body) or self._learn_messages(words, error, body)

    def refuses_tools(self, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """True for the refusal of a request because of its tools. Keeps that."""
        words = f"{error.detail} . {error.body.words}"
        if "tools" not in body or error.status not in REFUSALS or NOT_ABOUT_TOOLS.search(words):
            return False
        if any(name in body and _names(name, words, error) for name in ("tool_choice", "parallel_tool_calls")):
            return False  # one of these is refused
        if not NO_TOOLS.search(words) and error.body.param != "tools":
            return False
        if self.tools_refused is None:
            self.tools_refused = error.detail
            self.history.tools = False
            self._tell("tools are not sent, code and tool calls are asked for in fenced blocks", error)
        return True

    def rename_limit(self, error: EndpointError, field: str) -> bool:
        """Changes the field for the limit if `field` is refused as such. Returns True if it did, now or before."""
        other = "max_completion_tokens" if field == "max_tokens" else "max_tokens"
        words = _snake_case(f"{error.detail} . {error.body.words}")
        param = _snake_case(error.body.param)
        if param and param.rpartition(".")[2] not in (field, other):
            return False
        named = param == field or re.search(rf"\b{field}\b", words) or re.search(rf"\b{other}\b", words)
        told_other = re.search(rf"use [^.]{{0,20}}{other}|{other}[^.]{{0,20}}instead", words, re.IGNORECASE)
        numbers = re.search(r"\d{2,}", error.detail)
        if not named or not (told_other or (UNSUPPORTED.search(words) and not numbers)):
            return False
        if self.limit_field != field:
            return True
        if f"the limit is not sent as {other}" in self._left_out:
            self.limit_field = None
            self._tell("no limit of output tokens is sent", error)
            return True
        self._left_out.add(f"the limit is not sent as {field}")
        self.limit_field = other
        self._tell(f"the limit of output tokens is sent as {other}", error)
        return True

    def limit_output(self, most: int, error: EndpointError) -> None:
        """Keeps the largest limit that is taken."""
        if self.most_output is None or most < self.most_output:
            self.most_output = most
            self._tell(f"max_tokens is at most {most:,}", error)

    def note_untold_tokens(self) -> None:
        """Remembers that replies do not say how many tokens they took."""
        if UNTOLD not in self.sentences:
            self.sentences.append(UNTOLD)

    def note_returned(self, fields: Iterable[str]) -> None:
        """Remembers fields that the endpoint put into a reply."""
        self.history.returned |= set(fields) - self.history.unwanted

    def learn_stream(self, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """Switches streaming on where the endpoint only streams, off where it refuses to. True if this was refused."""
        words = f"{error.body.param} . {error.detail} . {error.body.words}"
        if error.status not in REFUSALS:
            return False
        if "stream" not in body and STREAM_ONLY.search(words):
            streams, sentence = True, "replies are streamed"
        elif "stream" in body and NO_STREAM.search(words) and error.body.param in ("", "stream"):
            if "stream_options" in words:  # the stream itself is not what is refused
                return False
            streams, sentence = False, "replies are not streamed"
        else:
            return False
        if self.stream != streams:
            self.stream = streams
            self._tell(sentence, error)
        return True

    def _learn_parameter(self, words: str, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """Leaves out the sampling parameter that a refusal names, or sends a value that is taken."""
        named = [name for name in body if name not in NEVER_LEFT_OUT and _names(name, words, error)]
        exact = [name for name in named if name == _snake_case(error.body.param)]
        named = exact or named
        if not named:
            return False
        told = f"{error.detail} {error.body.code}"
        if named == ["temperature"] and body["temperature"] == 0 and POSITIVE.search(told):
            if not self._least_temperature:
                self._least_temperature = SMALLEST_TEMPERATURE
                self._tell(f"temperature 0 is sent as {SMALLEST_TEMPERATURE}", error)
            return True
        if not UNSUPPORTED.search(told) and OUT_OF_RANGE.search(error.detail):
            return False
        if len(named) > 1 and TOGETHER.search(told):
            named = [next((name for name in FIRST_LEFT_OUT if name in named), named[-1])]
        for name in named:
            if name not in self._left_out:
                self._left_out.add(name)
                self._tell(f"{name} = {body[name]!r} is not sent", error)
        return True

    def _learn_messages(self, words: str, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """Changes how messages are sent: their fields, the system message, roles in a row, empty texts."""
        rules, messages = self.history, body["messages"]
        field = REASONING_FIELD.search(words)
        if field and DEMANDED.search(words) and not UNSUPPORTED.search(error.detail):
            return self._set(rules, "demanded", field[1], f"{field[1]} is sent back with every reply", error)
        for name in _fields_of_messages(messages) - {"role", "content", "tool_calls", "tool_call_id", "id", "type"}:
            if re.search(rf"\b{name}\b", words) and UNSUPPORTED.search(words) and FIELD_OF_MESSAGE.search(words):
                rules.unwanted.add(name)
                rules.returned.discard(name)
                rules.demanded = None if rules.demanded == name else rules.demanded
                self._tell(f"{name} is not sent with messages", error)
                return True
        if ONE_CALL.search(words) and any(len(message.get("tool_calls") or ()) > 1 for message in messages):
            return self._set(rules, "several_calls", False, "tool calls are sent one a message", error)
        if NINE_LETTERS.search(words):
            return self._set(rules, "any_ids", False, "tool calls are sent with ids of nine letters", error)
        if NO_SYSTEM.search(words) and any(message["role"] == "system" for message in messages):
            return self._set(rules, "system", False, "the system message is sent as part of the first question", error)
        if ALTERNATE.search(words) and _has_repeated_roles(messages):
            return self._set(rules, "repeated_roles", False, "messages of one role in a row are joined", error)
        if EMPTY_TEXT.search(words) and any(not message.get("content") for message in messages):
            return self._set(rules, "empty_text", False, "messages without text are sent as (empty)", error)
        return False

    def _set(self, rules: HistoryRules, name: str, value: Any, sentence: str, error: EndpointError) -> bool:
        """Sets a rule for histories."""
        if getattr(rules, name) != value:
            setattr(rules, name, value)
            self._tell(sentence, error)
        return True

    def _tell(self, sentence: str, error: EndpointError) -> None:
        """Adds a sentence for the record of a run."""
        self.sentences.append(f"{sentence}: the endpoint answered {error.detail[:200]!r}")


def _names(name: str, words: str, error: EndpointError) -> bool:
    """Whether an error is about the parameter `name`, which it may write in camel case."""
    words, detail, param = _snake_case(words), _snake_case(error.detail), _snake_case(error.body.param)
    if param:
        return param.rpartition(".")[2] == name or (
            param not in words.replace(param, "", 1) and bool(re.search(rf"\b{name}\b", detail))
        )
    if name in SHORT_NAMES:
        in_sentence = (
            rf"\b{name}(?: parameter| sequences?| is| are|:|=)|(?:parameter|argument)s?(?: supplied)?:? {name}\b"
        )
        return bool(re.search(rf"['\"`]{name}['\"`]|{in_sentence}", words) or re.search(rf": {name}\W*$", detail))
    return bool(re.search(rf"\b{name}\b", words) or re.search(rf"\b{name.replace('_', ' ')}\b", words, re.IGNORECASE))


def _snake_case(text: str) -> str:
    """The text with `presence_penalty` in place of `presencePenalty`."""
    return CAMEL.sub(lambda found: re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), found[0]), text)


def _fields_of_messages(messages: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names of all fields of messages and of the calls in them."""
    names: set[str] = set()
    for message in messages:
        names |= message.keys()
        for call in message.get("tool_calls") or ():
            names |= call.keys() | call["function"].keys() - {"name", "arguments"}
    return names - {"function"}


def _has_repeated_roles(messages: list[Mapping[str, Any]]) -> bool:
    return any(one["role"] == other["role"] for one, other in pairwise(messages))
