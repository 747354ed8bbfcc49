"""The page: its HTML, its style, and its modules joined to one script.

The modules in `assets/` are plain ES modules, loaded by browsers as they are. They are joined so that a page is one
request and an export is one file: each begins with `import { a, b } from "./other.js";` lines and exports what it
defines by `export function`, `export class` or `export const`, under names that no other module has.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

MAIN = "main.js"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_HTML = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{head}
<title>rlm-env</title>
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<div id="app"></div>
<noscript>This page needs JavaScript.</noscript>
{foot}
</body>
</html>
"""


def read_asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return (files("rlm_env.view") / "assets" / name).read_text("utf-8")


@cache
def script() -> str:
    """All modules as one, each before those that import it."""
    done: dict[str, str] = {}

    def add(name: str) -> None:
        if name in done:
            return
        text = read_asset(name)
        done[name] = ""  # a module that imports itself in a circle ends here
        for needed in _IMPORT.findall(text):
            add(needed)
        del done[name]
        done[name] = re.sub(
            r"^export (?=(?:async )?(?:function|class|const|let)\b)", "", _IMPORT.sub("", text), flags=re.M
        )

    add(MAIN)
    return "\n".join(f"// {name}\n{text}" for name, text in done.items())


@cache
def style() -> str:
    """The style sheet."""
    return read_asset("style.css")


def served_page() -> str:
    """The page that a server gives, with script and style beside it."""
    head = '<link rel="stylesheet" href="/style.css">\n<link rel="icon" href="data:,">'
    return _HTML.format(head=head, foot='<script type="module" src="/app.js"></script>')


def single_page(data: str) -> str:
    """The page in one file. `data`: the content of a JSON script element, in which `<` is escaped."""
    policy = (
        f"default-src 'none'; script-src {_hash(script())}; style-src {_hash(style())}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style()}</style>\n'
        '<link rel="icon" href="data:,">'
    )
    data_element = f'<script type="application/json" id="data">{data}</script>\n'
    return _HTML.format(head=head, foot=f'{data_element}<script type="module">{script()}</script>')


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"
