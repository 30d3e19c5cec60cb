"""Ctrl-C that lets the step finish."""

import signal
from types import FrameType

__all__ = ["Interruption"]


class Interruption:
    """While entered, the first SIGINT or SIGTERM sets `requested` and the second ends the program at once.

    The loop looks at `requested` between steps, saves, and leaves by itself. Outside the main thread signals
    cannot be caught; there nothing is changed.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested: str | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        try:
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        except ValueError:
            # Not the main thread.
            self._before.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            raise SystemExit(128 + number)
        self.requested = signal.Signals(number).name
