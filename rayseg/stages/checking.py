"""Labels held against what a training asks of them, before it starts."""

from rayseg.labels import LabelSource, read_trainable
from rayseg.stages.rows import Row, Rows


class CheckLabels:
    """Manifest rows to rows of `id` and `problem`, one line, empty where the labels are good.

    The size that labels must have is the manifest's; the images themselves are not opened.
    """

    def __init__(self, labels: LabelSource):
        self.labels = labels

    def __call__(self, rows: Rows) -> Rows:
        """One row each, in their order."""
        return [{"id": row["id"], "problem": self._problem(row)} for row in rows]

    def _problem(self, row: Row) -> str:
        try:
            read_trainable(self.labels, row["id"], (row["height"], row["width"]))
        except (ValueError, OSError) as error:
            return " ".join(str(error).split())
        return ""
