"""The three tools of a task: searching, looking through a page, reading lines of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from pydantic import Field

from deepdive_rlm.client import Web
from deepdive_rlm.search import MAX_RESULTS

NAMES = ("search_web", "scan_page", "open_lines")
SHOWN_LINES = 60
"""Most lines of a page in one result."""
SNIPPET_CHARS = 300


def make_tools(web: Web) -> list[Callable[..., Awaitable[str]]]:
    """The tools over a web, as `rlm_env.tools.box` takes them."""

    async def search_web(
        query: str,
        count: Annotated[int, Field(ge=1, le=MAX_RESULTS)] = 10,
        page: Annotated[int, Field(ge=1, le=100)] = 1,
    ) -> str:
        """Searches the web. Gives titles, addresses and first sentences, not the pages.

        Args:
            query: words to look for
            count: results
            page: 2 gives the results after the first `count`, and so on
        """
        found = await web.search(query, count, page)
        if not found:
            return "No results."
        return "\n".join(
            f"{result.get('position', place)}. {result.get('title', '')}\n{result['link']}\n"
            f"{str(result.get('snippet', ''))[:SNIPPET_CHARS]}"
            for place, result in enumerate(found, 1)
        )

    async def scan_page(url: str, find: str = "") -> str:
        """Looks through a page. Gives its title, its length in lines, and the numbered lines that hold some text.

        Args:
            url: address of the page
            find: text to look for, case ignored; alternatives are separated by |. Empty: the first lines
        """
        lines = await web.read(url)
        wanted = [text.strip().lower() for text in find.split("|") if text.strip()]
        numbered = [
            f"{number}: {line}"
            for number, line in enumerate(lines, 1)
            if not wanted or any(text in line.lower() for text in wanted)
        ]
        shown = numbered[: SHOWN_LINES if wanted else 10]
        left = f"\n({len(numbered) - len(shown)} more lines)" if len(numbered) > len(shown) else ""
        return f"{lines[0]} ({len(lines)} lines)\n{chr(10).join(shown) or 'No line holds it.'}{left}"

    async def open_lines(
        url: str, first: Annotated[int, Field(ge=1)] = 1, last: Annotated[int, Field(ge=1)] = SHOWN_LINES
    ) -> str:
        """Reads lines of a page, with their numbers and links.

        Args:
            url: address of the page
            first: first line
            last: last line
        """
        lines = await web.read(url)
        last = min(last, first + SHOWN_LINES - 1, len(lines))
        if first > last:
            return f"There are no such lines: the page has {len(lines)}."
        return "\n".join(f"{number}: {lines[number - 1]}" for number in range(first, last + 1))

    return [search_web, scan_page, open_lines]
