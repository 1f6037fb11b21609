"""Labels held against what a training asks of them, before it starts."""

from rayseg.labels import LabelSource, UnlabelledError, read_trainable
from rayseg.stages.rows import Row, Rows


class CheckLabels:
    """Manifest rows to rows of `id`, `problem` and `unlabelled`.

    The problem is one line, empty where the labels are good; unlabelled are those whose problem is
    that no pixel of theirs counts.

    The size that labels must have is the manifest's; the images themselves are not opened.
    """

    def __init__(self, labels: LabelSource):
        self.labels = labels

    def __call__(self, rows: Rows) -> Rows:
        """One row each, in their order."""
        return [{"id": row["id"], **self._found(row)} for row in rows]

    def _found(self, row: Row) -> Row:
        try:
            read_trainable(self.labels, row["id"], (row["height"], row["width"]))
        except (ValueError, OSError) as error:
            problem = " ".join(str(error).split())
            return {"problem": problem, "unlabelled": isinstance(error, UnlabelledError)}
        return {"problem": "", "unlabelled": False}
