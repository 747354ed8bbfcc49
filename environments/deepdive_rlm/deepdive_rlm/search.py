"""Search over the pages of a small web: BM25, with results in the shape of Serper's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

import bm25s

from deepdive_rlm.pages import Page

MAX_RESULTS = 20
QUERY_CHARS = 500


class SearchIndex:
    """Titles and texts of pages. Equal scores keep the order of the pages."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self.pages = pages
        texts = [" ".join((page.title, page.title, page.lead, *page.paragraphs)) for page in pages]
        self._bm25 = bm25s.BM25(backend="numpy", auto_compile=False)
        self._bm25.index(_words(texts), show_progress=False)

    def search(self, query: str, count: int, page: int = 1, without: Collection[str] = ()) -> dict[str, Any]:
        """One page of results: `organic` with title, link, snippet and position. `without`: addresses left out."""
        (words,) = _words([query[:QUERY_CHARS]])
        count = max(1, min(count, MAX_RESULTS))
        organic = []
        if words:
            # Rounded, so that the last bit of a logarithm on another machine changes no order.
            scores = self._bm25.get_scores(words).round(4)
            order = (-scores).argsort(kind="stable")[: int((scores > 0).sum())]
            kept = (self.pages[i] for i in order if self.pages[i].url not in without)
            start = (page - 1) * count
            organic = [
                {"title": found.title, "link": found.url, "snippet": found.lead, "position": place}
                for place, found in enumerate(islice(kept, start, start + count), start + 1)
            ]
        return {"searchParameters": {"q": query, "num": count, "page": page}, "organic": organic}


def _words(texts: list[str]) -> list[list[str]]:
    return bm25s.tokenize(texts, stopwords="en", stemmer=_stems, return_ids=False, show_progress=False)


def _stems(words: list[str]) -> list[str]:
    """English plurals; no more, since names must stay apart."""
    return [word.removesuffix("s") for word in words]
