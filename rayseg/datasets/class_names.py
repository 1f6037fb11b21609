"""Class names as people write them, and which class a name means."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rayseg.datasets.base import nearest
from rayseg.datasets.tally import Tally


class ClassIndex:
    """Finds the class that a name means: to the letter, else the only one of other case."""

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._exact = {name: i for i, name in enumerate(names)}
        self._folded: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(names):
            self._folded[name.casefold()].append(i)

    def of(self, name: str) -> int | None:
        """The class's index; None where no class is meant, or one of several."""
        if name in self._exact:
            return self._exact[name]
        alike = self._folded.get(name.casefold(), [])
        return alike[0] if len(alike) == 1 else None

    def find(self, name: str, what: str, where: str, way_out: str, tally: Tally) -> int | None:
        """As `of`, and counts what is left out for an unknown name or read in another case.

        Args:
            what: is left out where the name is unknown, such as ``tags``.
            where: file and place, for the example.
            way_out: how the class could be added.
        """
        index = self.of(name)
        if index is None:
            hint = nearest(name, self.names)
            text = f"of a class that the data set does not have ({way_out})"
            tally.leave_out(what, text, f"{where}: {name!r}{hint}")
        elif name != self.names[index]:
            text = "written in another case than the class's name"
            tally.note(what, text, f"{where}: {name!r} is {self.names[index]!r}")
        return index


def say_alike(names: Iterable[str], where: str, tally: Tally) -> None:
    """Notes classes that differ only in upper and lower case; each stays a class of its own."""
    folded: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folded[name.casefold()].append(name)
    for alike in folded.values():
        if len(alike) > 1:
            text = "differ only in upper and lower case, and are classes of their own"
            example = f"{where}: {' and '.join(map(repr, alike))}"
            tally.note("classes", text, example, len(alike))
