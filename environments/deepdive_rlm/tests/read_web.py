"""An independent reader of the small web: extracts facts from the text of a page.

It imports nothing of the generator; all that it knows of the pages' wording is in this file.
"""

from __future__ import annotations

import html
import re
from urllib.parse import urljoin

LINK = r"\[[^\]]*\]\((?P<url>\S+?)\)"
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]

NUMBERS = {
    "length": [
        r"It is (\d[\d,]*) (?:kilo)?metres long",
        r"gives? its length as (\d[\d,]*) kilo",
        r"it measures (\d[\d,]*) metres",
    ],
    "population": [r"It has (\d[\d,]*) inhabitants", r"census counted (\d[\d,]*) people"],
    "founded": [r"Its founding year is (\d+)", r"It was founded in (\d+)"],
    "opened": [r"It was opened in (\d+)", r"Its doors opened in (\d+)", r"first cart crossed it in (\d+)"],
    "year": [
        r"It appeared in (\d+)",
        r"title page is dated (\d+)",
        r"It was painted in (\d+)",
        r"signature stands (\d+)",
        r"It was released in (\d+)",
        r"first night was in (\d+)",
    ],
    "pages": [r"first edition has (\d[\d,]*) pages", r"It runs to (\d[\d,]*) pages"],
    "width": [r"canvas is (\d[\d,]*) centi", r"Its width is (\d[\d,]*) centi"],
    "minutes": [r"It lasts (\d[\d,]*) minutes", r"running time is (\d[\d,]*) minutes"],
}
LINKS = {
    "source": ["It rises in L", "Its source lies in L"],
    "country": ["It lies in L", "It belongs to L"],
    "river": ["The L flows", "It was built on the L"],
    "city": ["It stands in L", "Its campus is in L", "Visitors find it in L", "It joins two quarters of L"],
    "birthplace": ["came from L", "The place of birth is L"],
    "studied": [" studied at L", "A degree was taken at L"],
    "teacher": ["was taught by L", "The teacher of those years was L"],
    "patron": ["It was given its rooms by L", "Its patron was L"],
    "seat": ["Its seat is in L", "It is run from L"],
    "founder": ["Its founder was L", "It was set up by L"],
    "author": ["It was written by L", "Its author is L"],
    "publisher": ["It was brought out by L", "Its publisher was L"],
    "painter": ["It is by L", "It was painted by L"],
    "museum": ["It hangs in L", "Its owner is L"],
    "designer": ["It was designed by L", "Its designer was L"],
    "director": ["It was directed by L", "Its director is L"],
    "book": ["It is based on L", "Its story was taken from L"],
}
HABITS = {
    "city": ["holds a fair for X", "coat of arms shows X", "makers of X once ruled"],
    "university": ["bequest of X", "students carry X on"],
    "person": [" collected X", "treatise on X", "afraid of X", " gave X to every"],
    "museum": ["largest room shows X", "cellar is full of X"],
    "company": ["began by selling X", "trade mark shows X"],
    "book": ["chapter is about X", "cover shows X"],
    "painting": ["shows X on a table", "shows X in a boat"],
    "bridge": ["have the shape of X", "Traders sell X on"],
    "film": ["scene is full of X", "poster shows X"],
}
PEOPLE = [
    "botanist",
    "architect",
    "painter",
    "novelist",
    "chemist",
    "engineer",
    "composer",
    "geologist",
    "lawyer",
    "physician",
    "sculptor",
    "astronomer",
]
COMPANIES = [f"{trade} company" for trade in ["glass", "paper", "printing", "shipping", "clock", "textile"]]
BOOKS = ["crime novel", "travel book", "cookery book", "play", "book of poems", "school book"]
KINDS = {noun: kind for kind, nouns in (("person", PEOPLE), ("company", COMPANIES), ("book", BOOKS)) for noun in nouns}


def plain_lines(page: str, url: str) -> list[str]:
    """A page's HTML as lines of Markdown with absolute links, its title first: for the small web's pages only."""

    def link(match: re.Match) -> str:
        return f"[{match[2]}]({urljoin(url, match[1])})"

    title = re.search(r"<title>(.*?)</title>", page)[1]
    paragraphs = re.findall(r"<p>(.*?)</p>", page)
    return [html.unescape(re.sub(r'<a href="([^"]*)">(.*?)</a>', link, text)) for text in (title, *paragraphs)]


def read_page(lines: list[str]) -> dict:
    """The facts of a page: title, name, kind, noun, values (numbers; `born` as (year, month, day); `habit` as (its
    sentence's number, the object's word)), links (relation -> address), alias."""
    title, lead, text = lines[0], lines[1], " ".join(lines[2:])
    name, noun = re.fullmatch(r"(.*) (?:is|was) an? (.*)\.", lead).groups()
    kind = KINDS.get(noun, noun)
    values, links = {}, {}
    for attribute, patterns in NUMBERS.items():
        for pattern in patterns:
            if found := re.search(pattern, text):
                values[attribute] = int(found[1].replace(",", ""))
    if found := re.search(r"(?:was born on|date of birth is) (\d+) (\w+) (\d+)", text):
        values["born"] = (int(found[3]), MONTHS.index(found[2]) + 1, int(found[1]))
    for relation, patterns in LINKS.items():
        for pattern in patterns:
            if found := re.search(pattern.replace(" L", f" {LINK}"), text):
                links[relation] = found["url"]
    for number, pattern in enumerate(HABITS.get(kind, ())):
        if found := re.search(pattern.replace("X", "([a-z]+)"), text):
            values["habit"] = (number, found[1])
    alias = re.search(r"(?:also signed as|formerly called) ([^.]*)\.", text)
    return {
        "title": title,
        "name": name,
        "kind": kind,
        "noun": noun,
        "values": values,
        "links": links,
        "alias": alias[1] if alias else "",
    }
