"""SIGINT and SIGTERM as a wish that is granted between two steps."""

from __future__ import annotations

import signal
import threading


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is noted in ``received``; a second one ends the program."""

    def __init__(self):
        self.received = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self.received = number
        for other, handler in self._before.items():
            signal.signal(other, handler)
