"""Endless prose that means nothing and says nothing about magic numbers, in two vocabularies.

A sentence is made of slots, so that prose of ten million characters repeats few sentences. Some sentences hold a
number as long as the needle's: whoever takes any long number finds the wrong ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlm_env.authoring.draw import Draw


@dataclass(frozen=True)
class Vocabulary:
    """The words of sentences and of the names of magic numbers."""

    name: str
    times: list[str]
    people: list[str]
    deeds: list[str]
    things: list[str]
    places: list[str]
    counted: list[str]
    """Sentences with the slot {n} for a number that is nobody's."""
    colors: list[str]
    """First half of a name such as `amber-falcon`; `animals` is the second."""
    animals: list[str]
    digits: int
    """Digits of every number."""

    def writer(self, draw: Draw, number: Callable[[], str]) -> Callable[[], str]:
        """A function that makes the next sentence; `number` gives the numbers of counting ones."""
        random, choice = draw.random, draw.choice
        times, people, deeds, things, places = self.times, self.people, self.deeds, self.things, self.places

        def write() -> str:
            if random() < 0.04:
                return choice(self.counted).replace("{n}", number())
            return f"{choice(times)} {choice(people)} {choice(deeds)} {choice(things)} {choice(places)}."

        return write


STANDARD = Vocabulary(
    name="standard",
    times=[
        "In the morning", "Before the rain", "Long after midnight", "On market days", "Every other week",
        "When the bells had stopped", "At the end of the harvest", "As on most evenings", "Without much hurry",
        "In the third year of the drought", "Once the tide was out", "Between two letters", "For reasons of his own",
        "To nobody's surprise", "During the long winter", "Against good advice",
    ],
    people=[
        "the ferryman", "a retired judge", "the youngest of the clerks", "my aunt", "the keeper of the lighthouse",
        "an apprentice", "the choir master", "a travelling dentist", "the widow from the mill", "the night watchman",
        "a student of botany", "the postmistress", "the captain's brother", "an old map maker", "the gardener",
        "a man with a violin", "the bookbinder", "the innkeeper's daughter", "a surveyor", "the glass blower",
    ],
    deeds=[
        "carried", "mended", "described at length", "forgot", "hid", "sold", "painted", "looked for", "weighed",
        "bargained over", "wrapped up", "counted", "dropped", "inherited", "lent out", "polished", "sketched",
        "returned", "buried", "admired",
    ],
    things=[
        "a copper kettle", "two baskets of pears", "the broken compass", "an unfinished letter", "a box of nails",
        "the wrong ledger", "a coat without buttons", "the parish map", "a bundle of candles", "an empty birdcage",
        "the second volume", "a jar of honey", "three wet umbrellas", "a rusty key", "the spare rudder",
        "a chair with one arm", "some foreign stamps", "the recipe for plum cake", "a roll of canvas", "the clock face",
    ],
    places=[
        "behind the granary", "at the foot of the stairs", "near the old customs house", "in the back of the chapel",
        "on the road to the quarry", "under the bridge", "by the north gate", "in a rented room", "at the railway inn",
        "beside the frozen canal", "in full view of the square", "on the upper deck", "among the beehives",
        "in the schoolmaster's garden", "two streets from the harbour", "where the river bends",
    ],
    counted=[
        "The ledger of the warehouse lists {n} bricks for the new wall.",
        "A stamp on the crate reads {n}, and nobody knew who had put it there.",
        "By her count {n} grains went into a single sack.",
        "Ticket {n} was never claimed.",
        "The lottery drew {n} that year, and the baker lost again.",
    ],
    colors=[
        "amber", "ashen", "azure", "brazen", "bright", "broken", "burnt", "calm", "carved", "cedar", "clever", "cobalt",
        "coral", "crimson", "crooked", "dappled", "distant", "dusty", "ember", "faded", "frosted", "gentle", "gilded",
        "golden", "hidden", "hollow", "humble", "indigo", "ivory", "jade", "keen", "lilac", "little", "lonely", "lunar",
        "marble", "mellow", "misty", "mossy", "narrow", "nimble", "ochre", "opal", "pale", "quiet", "rapid", "russet",
        "sable", "salted", "scarlet", "silent", "silver", "slender", "smoky", "stormy", "sunlit", "tawny", "velvet",
        "violet", "wandering",
    ],
    animals=[
        "anchor", "badger", "beacon", "bison", "bramble", "canyon", "castle", "cello", "comet", "condor", "cricket",
        "dolphin", "donkey", "falcon", "ferret", "finch", "garnet", "gazelle", "glacier", "harbor", "heron", "hornet",
        "island", "jackal", "kestrel", "lantern", "lizard", "lobster", "magpie", "mallet", "marmot", "meadow",
        "monsoon", "mustang", "needle", "otter", "oyster", "panther", "pebble", "pelican", "pigeon", "planet", "plover",
        "quarry", "rabbit", "raven", "rocket", "salmon", "sparrow", "spider", "spruce", "squirrel", "summit", "teapot",
        "thistle", "tiger", "trumpet", "turnip", "turtle", "valley", "walnut", "walrus", "weasel", "willow",
    ],
    digits=7,
)  # fmt: skip

TINY = Vocabulary(
    name="tiny",
    times=["Now", "Today", "Here", "Then"],
    people=["the cook", "the boy", "my aunt", "a man"],
    deeds=["sees", "has", "buys", "takes"],
    things=["a cup", "a red hat", "the book", "one egg"],
    places=["at home", "in town", "by the lake", "on the road"],
    counted=["The book has {n} lines.", "A bus has the number {n}."],
    colors=["red", "blue", "green", "white", "black", "pink", "grey", "brown"],
    animals=["cat", "dog", "fox", "cow", "hen", "bee", "owl", "pig"],
    digits=3,
)

VOCABULARIES = {vocabulary.name: vocabulary for vocabulary in (STANDARD, TINY)}
