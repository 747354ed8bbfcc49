"""The kinds of things in the small web, their facts, and the wording of those on pages and in questions.

The things themselves are drawn in `world.py`, the questions in `questions.py`.

On a page `{v}` is the value, `{link}` a link to the target, `{name}` the thing itself. In a question `{src}` and
`{dst}` are the two ends of a relation, `{that}` the thing asked about. Every fact is on the page of the thing that has
it, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Attribute:
    """A number or a date on a page. `clue`: how a question describes a thing by it, None if no question does."""

    sentences: tuple[str, ...]
    asked: str
    low: int
    high: int
    clue: str | None = None
    after: str | None = None
    """A relation to a person: the value is a year, `low` to `high` years after that person's birth."""
    unit: str = ""


@dataclass(frozen=True)
class Relation:
    """From one kind to another, with one target each."""

    target: str
    sentences: tuple[str, ...]
    words: str


@dataclass(frozen=True)
class Kind:
    """One kind of thing. `nouns`: its name in a page's first sentence; if there are several, the noun itself is a fact
    (a person's profession). `habits`: sentences with an object in them, on the page and in a question."""

    nouns: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)
    relations: dict[str, Relation] = field(default_factory=dict)
    habits: tuple[tuple[str, str], ...] = ()


OBJECTS = (
    ("barometers", "instruments that measure the pressure of the air"),
    ("sundials", "devices that tell the time by a shadow"),
    ("lanterns", "lamps with glass around the flame"),
    ("kites", "toys that fly in the wind on a string"),
    ("anchors", "heavy irons that keep a ship in its place"),
    ("compasses", "instruments whose needle points north"),
    ("violins", "small string instruments played under the chin"),
    ("umbrellas", "things that one opens against the rain"),
    ("spectacles", "pairs of lenses worn before the eyes"),
    ("thimbles", "little caps that protect a finger in sewing"),
    ("hourglasses", "devices that tell the time by running sand"),
    ("magnets", "things that attract iron"),
    ("candles", "sticks of wax with a wick"),
    ("beehives", "houses for insects that make honey"),
    ("snowshoes", "frames worn on the feet so as not to sink in"),
    ("telescopes", "instruments for looking at the stars"),
    ("globes", "balls with a map of the earth on them"),
    ("keys", "pieces of metal that open locks"),
    ("mirrors", "panes in which one sees oneself"),
    ("ladders", "two poles with rungs between them"),
    ("whistles", "small pipes that give a shrill sound"),
    ("saddles", "seats for riders"),
    ("puppets", "figures moved by strings"),
    ("bells", "hollow metal bodies that ring when struck"),
    ("stamps", "small papers that pay for a letter"),
    ("meteorites", "stones that fell from the sky"),
    ("teapots", "vessels with a spout for a hot drink"),
    ("balloons", "bags that rise when filled with gas"),
    ("oars", "poles with a blade that move a boat"),
    ("masks", "false faces"),
)
"""On pages, and as a question describes them."""


def year(sentences: tuple[str, str], clue: str, asked: str, low: int, high: int, after: str | None = None) -> Attribute:
    return Attribute(sentences, asked, low, high, f"{clue} in {{v}}", after)


def founded(low: int, high: int, after: str | None = None) -> Attribute:
    asked = "In what year was {that} founded?"
    return year(("Its founding year is {v}.", "It was founded in {v}."), "was founded", asked, low, high, after)


def opened(sentence: str, low: int, high: int, after: str | None = None) -> Attribute:
    asked = "In what year was {that} opened?"
    return year(("It was opened in {v}.", sentence), "was opened", asked, low, high, after)


def measured(sentences: tuple[str, str], asked: str, low: int, high: int, unit: str) -> Attribute:
    return Attribute(sentences, asked, low, high, unit=unit)


KINDS: dict[str, Kind] = {
    "country": Kind(("country",)),
    "river": Kind(
        ("river",),
        {
            "length": measured(
                ("It is {v} kilometres long.", "Surveyors give its length as {v} kilometres."),
                "How many kilometres long is {that}?",
                31,
                2980,
                "kilometres",
            )
        },
        {"source": Relation("country", ("It rises in {link}.", "Its source lies in {link}."), "{src} rises in {dst}")},
    ),
    "city": Kind(
        ("city",),
        {
            "founded": founded(1050, 1699),
            "population": measured(
                ("It has {v} inhabitants.", "The last census counted {v} people."),
                "How many inhabitants does {that} have?",
                2100,
                986_000,
                "inhabitants",
            ),
        },
        {
            "country": Relation("country", ("It lies in {link}.", "It belongs to {link}."), "{src} lies in {dst}"),
            "river": Relation(
                "river", ("The {link} flows through it.", "It was built on the {link}."), "{dst} flows through {src}"
            ),
        },
        (
            ("Every spring it holds a fair for {object}.", "holds a fair every spring for {object}"),
            ("Its coat of arms shows {object}.", "has a coat of arms that shows {object}"),
            ("A guild of makers of {object} once ruled it.", "was once ruled by a guild of makers of {object}"),
        ),
    ),
    "university": Kind(
        ("university",),
        {"founded": founded(1300, 1699)},
        {"city": Relation("city", ("It stands in {link}.", "Its campus is in {link}."), "{src} stands in {dst}")},
        (
            ("Its library was left a bequest of {object}.", "has a library that was left a bequest of {object}"),
            ("Its students carry {object} on graduation day.", "has students who carry {object} on graduation day"),
        ),
    ),
    "person": Kind(
        (
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
        ),
        {
            "born": year(
                ("{name} was born on {v}.", "The date of birth is {v}."),
                "was born",
                "On what date was {that} born?",
                1740,
                1929,
            )
        },
        {
            "birthplace": Relation(
                "city", ("{name} came from {link}.", "The place of birth is {link}."), "{src} was born in {dst}"
            ),
            "studied": Relation(
                "university", ("{name} studied at {link}.", "A degree was taken at {link}."), "{src} studied at {dst}"
            ),
            "teacher": Relation(
                "person",
                ("{name} was taught by {link}.", "The teacher of those years was {link}."),
                "{src} was taught by {dst}",
            ),
        },
        (
            ("{name} collected {object}.", "collected {object}"),
            ("{name} wrote a treatise on {object}.", "wrote a treatise on {object}"),
            ("{name} was afraid of {object}.", "was afraid of {object}"),
            ("{name} gave {object} to every guest.", "gave {object} to every guest"),
        ),
    ),
    "museum": Kind(
        ("museum",),
        {"opened": opened("Its doors opened in {v}.", 25, 60, "patron")},
        {
            "city": Relation("city", ("It stands in {link}.", "Visitors find it in {link}."), "{src} stands in {dst}"),
            "patron": Relation(
                "person",
                ("It was given its rooms by {link}.", "Its patron was {link}."),
                "{dst} was the patron of {src}",
            ),
        },
        (
            ("Its largest room shows {object}.", "shows {object} in its largest room"),
            ("Its cellar is full of {object}.", "has a cellar full of {object}"),
        ),
    ),
    "company": Kind(
        ("glass company", "paper company", "printing company", "shipping company", "clock company", "textile company"),
        {"founded": founded(20, 50, "founder")},
        {
            "seat": Relation(
                "city", ("Its seat is in {link}.", "It is run from {link}."), "{src} has its seat in {dst}"
            ),
            "founder": Relation(
                "person", ("Its founder was {link}.", "It was set up by {link}."), "{src} was set up by {dst}"
            ),
        },
        (
            ("It began by selling {object}.", "began by selling {object}"),
            ("Its trade mark shows {object}.", "has a trade mark that shows {object}"),
        ),
    ),
    "book": Kind(
        ("crime novel", "travel book", "cookery book", "play", "book of poems", "school book"),
        {
            "year": year(
                ("It appeared in {v}.", "Its title page is dated {v}."),
                "appeared",
                "In what year did {that} appear?",
                22,
                60,
                "author",
            ),
            "pages": measured(
                ("The first edition has {v} pages.", "It runs to {v} pages."),
                "How many pages does {that} have?",
                61,
                1240,
                "pages",
            ),
        },
        {
            "author": Relation(
                "person", ("It was written by {link}.", "Its author is {link}."), "{src} was written by {dst}"
            ),
            "publisher": Relation(
                "company",
                ("It was brought out by {link}.", "Its publisher was {link}."),
                "{src} was brought out by {dst}",
            ),
        },
        (
            ("A chapter is about {object}.", "has a chapter about {object}"),
            ("Its cover shows {object}.", "has a cover that shows {object}"),
        ),
    ),
    "painting": Kind(
        ("painting",),
        {
            "year": year(
                ("It was painted in {v}.", "Beside the signature stands {v}."),
                "was painted",
                "In what year was {that} painted?",
                18,
                60,
                "painter",
            ),
            "width": measured(
                ("The canvas is {v} centimetres wide.", "Its width is {v} centimetres."),
                "How many centimetres wide is {that}?",
                19,
                790,
                "centimetres",
            ),
        },
        {
            "painter": Relation(
                "person", ("It is by {link}.", "It was painted by {link}."), "{src} was painted by {dst}"
            ),
            "museum": Relation("museum", ("It hangs in {link}.", "Its owner is {link}."), "{src} hangs in {dst}"),
        },
        (
            ("It shows {object} on a table.", "shows {object} on a table"),
            ("It shows {object} in a boat.", "shows {object} in a boat"),
        ),
    ),
    "bridge": Kind(
        ("bridge",),
        {
            "opened": opened("The first cart crossed it in {v}.", 25, 60, "designer"),
            "length": measured(
                ("It is {v} metres long.", "From end to end it measures {v} metres."),
                "How many metres long is {that}?",
                21,
                1890,
                "metres",
            ),
        },
        {
            "city": Relation(
                "city", ("It stands in {link}.", "It joins two quarters of {link}."), "{src} stands in {dst}"
            ),
            "designer": Relation(
                "person", ("It was designed by {link}.", "Its designer was {link}."), "{src} was designed by {dst}"
            ),
        },
        (
            ("Its railings have the shape of {object}.", "has railings in the shape of {object}"),
            ("Traders sell {object} on it.", "has traders on it who sell {object}"),
        ),
    ),
    "film": Kind(
        ("film",),
        {
            "year": year(
                ("It was released in {v}.", "Its first night was in {v}."),
                "was released",
                "In what year was {that} released?",
                25,
                60,
                "director",
            ),
            "minutes": measured(
                ("It lasts {v} minutes.", "Its running time is {v} minutes."),
                "How many minutes does {that} last?",
                41,
                244,
                "minutes",
            ),
        },
        {
            "director": Relation(
                "person", ("It was directed by {link}.", "Its director is {link}."), "{src} was directed by {dst}"
            ),
            "book": Relation(
                "book", ("It is based on {link}.", "Its story was taken from {link}."), "{src} is based on {dst}"
            ),
        },
        (
            ("Its best known scene is full of {object}.", "has a scene full of {object}"),
            ("Its poster shows {object}.", "has a poster that shows {object}"),
        ),
    ),
}

COUNTS: dict[str, dict[str, int]] = {
    "standard": {
        "country": 24,
        "river": 70,
        "city": 420,
        "university": 170,
        "person": 1300,
        "museum": 180,
        "company": 300,
        "book": 450,
        "painting": 310,
        "bridge": 220,
        "film": 260,
    },
    "tiny": {"country": 3, "river": 5, "city": 14, "person": 30, "museum": 10, "painting": 16, "bridge": 10},
}
"""Pages of each kind, in the order in which they are made: targets of relations come first."""
