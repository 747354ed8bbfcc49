"""Reading a reply: its thoughts, its code, its calls, in every form in which models write them."""

from rlm_env.replies.aliases import ALIASES, AliasUses, handed_in
from rlm_env.replies.arguments import TOOL_NAME, code_of, is_repl, read_arguments
from rlm_env.replies.calls import TextCall
from rlm_env.replies.forms import Code, read_forms, text_calls
from rlm_env.replies.source import parses
from rlm_env.replies.thoughts import strip_thinking, visible_text

__all__ = [
    "ALIASES",
    "TOOL_NAME",
    "AliasUses",
    "Code",
    "TextCall",
    "code_of",
    "handed_in",
    "is_repl",
    "parses",
    "read_arguments",
    "read_forms",
    "strip_thinking",
    "text_calls",
    "visible_text",
]
