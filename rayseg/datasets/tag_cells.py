"""A cell with the tags of an image, cut into its tags."""

import re
from collections.abc import Collection, Iterable

NO_VALUE = ("nan", "NaN", "<NA>", "#N/A", "set()")
"""Cells without a tag, as pandas, Excel and Python write them."""
NO_TAG = "none"
"""A tag that says that there is none, in small or large letters."""
_QUOTED = r"""(?:'[^']*'|"[^"]*")"""
_LIST = re.compile(r"""(?:\[|[({](?=\s*['"]))(.*)[\])}]""")
_QUOTED_LIST = re.compile(rf"\s*(?:{_QUOTED}[\s,]*)*")


class TagCells:
    """Cuts cells into tags, by the strongest separator that any cell of the file holds.

    The separators are ``;`` or ``|``, then a comma, then blanks. A cell that is a list as Python,
    pandas, NumPy or JSON write it, such as ``['cat', 'traffic light']``, is read as that.

    Args:
        cells: all of the file's.
        names: classes that are known beforehand: a cell that is one is one tag.
    """

    def __init__(self, cells: Iterable[str], names: Collection[str] = ()):
        self._names = names
        text = "\n".join(cell for cell in cells if not _LIST.fullmatch(cell))
        joined = re.search(r"[;|]", text)
        self._pattern = r"[;|]" if joined else "," if "," in text else r"\s+"

    def split(self, cell: str) -> list[str]:
        """The tags of a cell, in its order.

        Raises:
            ValueError: it is a list that is not closed, or whose quotes do not fit together.
        """
        if cell in self._names:
            return [cell]
        if cell in NO_VALUE:
            return []
        inside = _LIST.fullmatch(cell)
        if inside is None:
            if cell[:1] in ("[", "{"):
                raise ValueError("list of tags is not closed")
            return _without_empty(re.split(self._pattern, cell))
        if inside[1].strip()[:1] not in ("'", '"'):
            return _without_empty(re.split(r"[;|,]", inside[1]))
        if not _QUOTED_LIST.fullmatch(inside[1]):
            raise ValueError("quotes in a list of tags do not fit together")
        return _without_empty(one[1:-1] for one in re.findall(_QUOTED, inside[1]))


def _without_empty(tags: Iterable[str]) -> list[str]:
    return [tag.strip() for tag in tags if tag.strip()]
