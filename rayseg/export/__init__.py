"""Foreign formats that masks leave in; EXPORTERS is the only list of them."""

from rayseg.export.voc import write_voc

EXPORTERS = {"voc": write_voc}

__all__ = ["EXPORTERS", "write_voc"]
