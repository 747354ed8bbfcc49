"""Names that nobody has read anywhere, many of them nearly equal: Velden, Veldin, Veldern."""

from __future__ import annotations

from collections.abc import Mapping

from rlm_env.authoring.draw import Draw

ONSETS = ("B", "Br", "D", "Dr", "F", "G", "Gr", "H", "K", "Kr", "L", "M", "N", "P", "R", "S", "St", "T", "Tr", "V", "W")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("ld", "nd", "rn", "st", "lk", "rt", "v", "m", "n", "sk", "ss", "tt", "g", "ll")
FAMILY = ("en", "in", "ern", "er", "ov", "ik")
PLACE = ("ow", "ava", "stad", "haven", "by", "mont", "ingen", "ora")
RIVER = ("a", "e", "o", "ula")
COUNTRY = ("ia", "land", "mark", "onia")
GIVEN = (
    *("Ada", "Alma", "Anton", "Aron", "Berta", "Bruno", "Carla", "Cecil", "Clara", "Dora", "Edgar", "Edith", "Elias"),
    *("Ella", "Emil", "Erna", "Felix", "Flora", "Frida", "Georg", "Gerda", "Hanna", "Hector", "Helga", "Hugo", "Ida"),
    *("Ines", "Irma", "Ivan", "Jakob", "Johan", "Jonas", "Julia", "Karl", "Klara", "Lena", "Leo", "Lydia", "Magda"),
    *("Mara", "Martin", "Max", "Mina", "Nora", "Olga", "Oskar", "Otto", "Paula", "Peter", "Rosa", "Rudolf", "Selma"),
    *("Simon", "Stella", "Thea", "Tobias", "Vera", "Viktor", "Wanda", "Willem"),
)
ADJECTIVES = (
    *("Blue", "Broken", "Cold", "Crooked", "Distant", "Empty", "False", "Golden", "Green", "Hidden", "Hollow", "Last"),
    *("Little", "Long", "Lost", "Narrow", "Old", "Pale", "Quiet", "Red", "Salt", "Second", "Silver", "Stone", "White"),
)
NOUNS = (
    *("Autumn", "Bride", "Brother", "Castle", "Daughter", "Door", "Ferry", "Field", "Forest", "Garden", "Harbour"),
    *("Harvest", "Heron", "House", "Island", "Letter", "Mill", "Mountain", "Night", "Orchard", "Passenger", "River"),
    *("Road", "Shadow", "Shore", "Sister", "Staircase", "Stranger", "Summer", "Tower", "Valley", "Village", "Window"),
)


class Names:
    """Makes names; no two titles of one maker, nor their addresses, are equal."""

    def __init__(self, draw: Draw, *, short: bool = False) -> None:
        self._draw = draw
        self._taken: set[str] = set()
        stems = draw.shuffled([o + v + c for o in ONSETS for v in VOWELS for c in CODAS])
        few = 12 if short else 90
        self._families = [stem + ending for stem in stems[:few] for ending in FAMILY]
        self._places = stems[few:]

    def make(self, kind: str, noun: str, near: Mapping[str, str]) -> tuple[str, str]:
        """Name and title of a new thing; `near`: names of what it is related to."""
        for _ in range(1000):
            name = self._draw_name(kind, near)
            for title in (name, f"{name} ({noun})") if kind in ("person", "film") else (name,):
                if title.lower() not in self._taken:
                    self._taken.add(title.lower())
                    return name, title
        raise RuntimeError(f"no name is left for a {kind}")

    def alias(self, kind: str, name: str) -> str:
        """Another name of the same thing, which no other has as its own."""
        while True:
            other = self._place(PLACE)
            if kind == "person":
                other = f"{self._draw.choice(GIVEN)} {name.split()[-1]}"
            if other.lower() not in self._taken:
                self._taken.add(other.lower())
                return other

    def _draw_name(self, kind: str, near: Mapping[str, str]) -> str:
        draw = self._draw
        family = draw.choice(self._families)
        if kind == "person":
            return f"{draw.choice(GIVEN)} {family}"
        if kind == "city":
            return self._place(PLACE)
        if kind == "river":
            return self._place(RIVER)
        if kind == "country":
            return self._place(COUNTRY)
        if kind == "university":
            return draw.choice((f"University of {near['city']}", f"{family} College", f"{family} Institute"))
        if kind == "museum":
            return draw.choice((f"Museum of {near['city']}", f"{family} Museum", f"{family} Collection"))
        if kind == "company":
            return draw.choice((f"{family} and Sons", f"{family} Works", f"{family} and {draw.choice(self._families)}"))
        if kind == "bridge":
            return draw.choice((f"{family} Bridge", f"{draw.choice(ADJECTIVES)} Bridge of {near['city']}"))
        if kind == "film" and draw.below(3):
            return near["book"]
        if kind == "painting":
            return f"{draw.choice(NOUNS)} with {draw.choice(NOUNS)}"
        return f"The {draw.choice(ADJECTIVES)} {draw.choice(NOUNS)}"

    def _place(self, endings: tuple[str, ...]) -> str:
        return self._draw.choice(self._places) + self._draw.choice(endings)
