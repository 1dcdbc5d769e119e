"""The parts of one report: which wait to be built, and what became of the others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future

from listener.storage.results import WrittenResult
from pipeline.rendering.gallery import Card


class PartBoard:
    """For the report's own thread, and for one thread for each process that takes part."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._waiting = deque(numbers)
        self._refused: deque[int] = deque()
        """By a process; built here, where it is seen why."""
        self._given: set[int] = set()
        self._built: dict[int, Sequence[WrittenResult | Future[WrittenResult]]] = {}
        self._cards: dict[int, Card] = {}
        self._is_closed = False
        self._changes = 0
        self._changed = threading.Condition()

    # --- of a process

    def take(self) -> int | None:
        """The next part, or None when no more will wait for a process."""
        with self._changed:
            if self._is_closed or not self._waiting:
                return None
            return self._give(self._waiting)

    def built(
        self, number: int, results: Sequence[WrittenResult], cards: Mapping[int, Card]
    ) -> None:
        """A part is built and durable."""
        with self._changed:
            self._cards.update(cards)
            self._note_built(number, results)

    def refuse(self, number: int) -> None:
        """A part could not be built in a process."""
        with self._changed:
            self._given.discard(number)
            self._refused.append(number)
            self._note_change()

    def give_back(self, numbers: Collection[int]) -> None:
        """Parts that a process was given and will not build."""
        with self._changed:
            self._given.difference_update(numbers)
            self._waiting.extendleft(sorted(numbers, reverse=True))
            self._note_change()

    # --- of the report's own thread

    def take_here(self) -> int | None:
        """The next part to build here, or None when none waits now."""
        with self._changed:
            source = self._refused or self._waiting
            return self._give(source) if source else None

    def built_here(self, number: int, writes: Sequence[Future[WrittenResult]]) -> None:
        """A part is built, and will be durable when these are done."""
        with self._changed:
            self._note_built(number, writes)

    def are_built(self, numbers: Collection[int]) -> bool:
        """Whether all these parts are built."""
        with self._changed:
            return all(number in self._built for number in numbers)

    @property
    def is_done(self) -> bool:
        """Whether every part is built."""
        with self._changed:
            return not (self._waiting or self._refused or self._given)

    def cards(self) -> Mapping[int, Card]:
        """The cards that processes have cut so far."""
        with self._changed:
            return dict(self._cards)

    def results(self, number: int) -> Iterator[WrittenResult]:
        """The results of a part that is built, in order; waits until they are durable."""
        for result in self._built[number]:
            yield result if isinstance(result, WrittenResult) else result.result()

    @property
    def changes(self) -> int:
        """How often a part was finished, refused or given back."""
        with self._changed:
            return self._changes

    def wait(self, seen: int, timeout_s: float) -> bool:
        """Wait for a change after those that were `seen`; False when none comes in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._changes != seen, timeout_s)

    def close(self) -> None:
        """Give nothing more to a process."""
        with self._changed:
            self._is_closed = True

    # --- with the lock

    def _give(self, source: deque[int]) -> int:
        number = source.popleft()
        self._given.add(number)
        return number

    def _note_built(
        self, number: int, results: Sequence[WrittenResult | Future[WrittenResult]]
    ) -> None:
        self._given.discard(number)
        self._built[number] = results
        self._note_change()

    def _note_change(self) -> None:
        self._changes += 1
        self._changed.notify_all()
