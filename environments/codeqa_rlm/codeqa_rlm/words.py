"""The words that identifiers are made of, in two vocabularies, and identifiers made of them.

No word is a keyword, a builtin or a module of the standard library, so that a name made of them means what the
repository says and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlm_env.authoring.draw import Draw


@dataclass(frozen=True)
class Vocabulary:
    name: str
    verbs: list[str]
    nouns: list[str]
    adjectives: list[str]
    roles: list[str]
    """Last word of a class; empty: there is none."""
    faults: list[str]
    """Last word of an exception."""
    values: list[str]
    """Names of parameters that hold data."""
    switches: list[str]
    """Names of parameters that decide which branch is taken."""
    extras: list[str]
    """Names of parameters that decide nothing."""

    def function(self, draw: Draw) -> str:
        """`verb_noun` or `verb_adjective_noun`."""
        middle = f"{draw.choice(self.adjectives)}_" if self.roles and draw.random() < 0.5 else ""
        return f"{draw.choice(self.verbs)}_{middle}{draw.choice(self.nouns)}"

    def module(self, draw: Draw) -> str:
        return f"{draw.choice(self.adjectives)}_{draw.choice(self.nouns)}" if self.roles else draw.choice(self.nouns)

    def type(self, draw: Draw) -> str:
        """The name of a class."""
        role = draw.choice(self.roles) if self.roles else ""
        return f"{draw.choice(self.adjectives)}_{draw.choice(self.nouns)}_{role}".title().replace("_", "")

    def fault(self, draw: Draw) -> str:
        """The name of an exception class."""
        name = f"{draw.choice(self.adjectives)}_{draw.choice(self.nouns)}_{draw.choice(self.faults)}"
        return name.title().replace("_", "")

    def constant(self, draw: Draw) -> str:
        return f"{draw.choice(self.adjectives)}_{draw.choice(self.nouns)}_{draw.choice(self.switches)}".upper()

    def sentence(self, draw: Draw) -> str:
        """A docstring that says nothing."""
        return f"{draw.choice(self.verbs).capitalize()} the {draw.choice(self.adjectives)} {draw.choice(self.nouns)}."


STANDARD = Vocabulary(
    name="standard",
    verbs=[
        "align", "attach", "audit", "balance", "batch", "bind", "carve", "chart", "claim", "clamp", "clean", "combine",
        "draft", "drain", "expand", "fetch", "flush", "fold", "gather", "grade", "hoist", "inspect", "label", "lift",
        "merge", "patch", "plan", "prune", "publish", "rank", "rebuild", "relay", "render", "restore", "route", "scan",
        "settle", "shift", "stage", "store", "sweep", "tally", "trace", "trim", "unfold", "verify", "weigh", "widen",
    ],
    nouns=[
        "anchor", "archive", "badge", "ballast", "barrel", "basket", "beacon", "bridge", "bundle", "canvas", "cargo",
        "carton", "ceiling", "cellar", "chapel", "circuit", "compass", "copper", "cradle", "crate", "deposit", "docket",
        "engine", "ferry", "fixture", "folder", "furnace", "garden", "gasket", "granite", "harbor", "hinge", "invoice",
        "island", "kettle", "ladder", "lantern", "ledger", "lever", "locker", "magnet", "manifest", "mirror", "mortar",
        "needle", "notebook", "orchard", "paddle", "parcel", "pillar", "pocket", "pulley", "quarry", "quota", "ribbon",
        "roster", "saddle", "shelter", "signal", "spindle", "stable", "ticket", "timber", "tunnel",
        "turbine", "valve", "vessel", "voucher", "warrant", "window", "workshop",
    ],
    adjectives=[
        "amber", "ashen", "blunt", "brisk", "broad", "calm", "cedar", "coarse", "cobalt", "coral", "crisp", "dense",
        "distant", "dusty", "eager", "faded", "fertile", "gentle", "gilded", "grand", "hollow", "humble", "ivory",
        "keen", "lively", "lunar", "mellow", "modest", "narrow", "nimble", "noble", "oblique", "pale", "plain",
        "polar", "quiet", "rapid", "robust", "rural", "rustic", "scarlet", "shallow", "silver", "slender", "solid",
        "spare", "steady", "sturdy", "tidal", "urban", "vivid", "woven",
    ],
    roles=[
        "Adapter", "Agent", "Broker", "Builder", "Carrier", "Cursor", "Driver", "Handler", "Keeper", "Loader", "Mapper",
        "Node", "Planner", "Reader", "Router", "Sensor", "Tracker", "Writer",
    ],
    faults=["Error", "Fault", "Failure", "Conflict"],
    values=["amount", "count", "height", "items", "pages", "rows", "score", "size", "total_in", "volume", "weight"],
    switches=["bound", "budget", "cutoff", "depth", "floor", "level", "limit", "margin", "quota", "retries"],
    extras=["colour", "label", "mode", "owner", "prefix", "region", "style", "target", "theme", "zone"],
)  # fmt: skip

TINY = Vocabulary(
    name="tiny",
    verbs=["add", "get", "make", "take", "find", "read", "count", "show"],
    nouns=["cup", "hat", "book", "egg", "song", "cake", "rice", "milk", "ball", "drum", "team", "race"],
    adjectives=["red", "blue", "good", "bad", "big", "new", "old", "hot"],
    roles=[],
    faults=["Error"],
    values=["n", "a", "b"],
    switches=["limit"],
    extras=["label"],
)

VOCABULARIES = {vocabulary.name: vocabulary for vocabulary in (STANDARD, TINY)}
