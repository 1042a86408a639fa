"""SIGINT and SIGTERM as a wish that is granted after the step."""

from __future__ import annotations

import signal
import threading
import time

PATIENCE_SECONDS = 5.0


class StopSignals:
    """While entered, the first SIGINT or SIGTERM is noted in ``received``; one more, some seconds later, ends
    the program. Launchers and schedulers send several at once, which must not kill the save.
    """

    def __init__(self):
        self.received, self._first = 0, 0.0
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
        if self.received and time.monotonic() - self._first > PATIENCE_SECONDS:
            raise KeyboardInterrupt
        if not self.received:
            self.received, self._first = number, time.monotonic()
