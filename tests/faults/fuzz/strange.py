"""Values that nobody expects, drawn by hypothesis; the same for the same seed."""

from functools import lru_cache
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

CLASSICS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e30,
    1e308, float("nan"), float("inf"), -float("inf"), "", " ", "0", "-1", "1e400", "nan", "NaN",
    "inf", "None", "null", "true", "12abc", "../../escape", "/etc/passwd", "..", ".", "a/b", "a\\b",
    "~", "-", "--help", "a\nb", "a\rb", "a\tb", "a\0b", "\ufeffx", "\u202eabc", "\u2028", "e\u0301",
    "\ud800", "\U0001f600", "%s%n{}{0}", "$(touch x)", "'\"`;|&", "con", "x" * 300, "x" * 70_000,
    "s3://bucket/x", "file:///etc/passwd", "http://127.0.0.1:1/", [], {}, [[]], [None], [0, 0],
    [0, 0, 0, 0], [1, 2, 3], [float("nan")] * 4, [-5, -5, 10, 10], [1e30, 1e30, 1e30, 1e30],
    [2**40] * 4, {"a": 1}, {"counts": [1, 2], "size": [3, 4]}, {"counts": "xx", "size": [3, 4]},
    {"counts": [2**31] * 2, "size": [65536, 65536]}, {"counts": [], "size": [10**9, 10**9]},
    {"counts": "P\0", "size": [-1, -1]}, [[1, 2, 3, 4, 5, 6]], [[0, 0, 1e30, 0, 1e30, 1e30]],
    [[1, 2], []], ["a"], [[["a"]]], b"", b"\xff\xfe", "\x1b[31m", "ids", "id", "a,b;c|d",
)  # fmt: skip
"""What breaks borders everywhere."""
TEXTS = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@lru_cache(maxsize=2)
def strange_values(number: int, count: int = 300) -> tuple[Any, ...]:
    """Classics, and values that hypothesis draws from that seed."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count, database=None, phases=[Phase.generate], deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(JSON)
    def keep(value: Any) -> None:
        found.append(value)

    keep()
    return (*CLASSICS, *found)
