"""What was made last, held in bounded memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """Values by key, of which those go first that were asked for longest ago; for many threads.

    Args:
        most: sum of the weights that are held.
        weigh: weight of a value; one that weighs more than `most` is not held.
    """

    def __init__(self, most: int, weigh: Callable[[V], int]):
        self._most, self._weigh = most, weigh
        self._held: OrderedDict[Hashable, V] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()
        self.weight = 0

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of the key, made now where it is not held; what `make` raises is raised.

        Who asks for what another thread makes just now waits for it.
        """
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            turn = self._making.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if key in self._held:
                    return self._held[key]
            try:
                value = make()
                self._hold(key, value)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return value

    def _hold(self, key: Hashable, value: V) -> None:
        with self._lock:
            if key not in self._held and self._weigh(value) <= self._most:
                self._held[key] = value
                self.weight += self._weigh(value)
            while self.weight > self._most:
                self.weight -= self._weigh(self._held.popitem(last=False)[1])
