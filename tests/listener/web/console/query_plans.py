"""How SQLite looks for what the console asks: through an index, or row by row."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from listener.web.console.database import METADATA, ConsoleDatabase

WHOLE_TABLES = {f"SCAN main.{table.name}" for table in METADATA.sorted_tables}


def scans_of(database: ConsoleDatabase, act: Callable[[], object]) -> list[str]:
    """The steps of the act's statements that walk through a whole table without an index."""
    asked: list[tuple[str, tuple[object, ...]]] = []

    def note(
        _connection: object, _cursor: object, text: str, values: tuple[object, ...], *_: object
    ) -> None:
        asked.append((text, values))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)
    assert asked
    with database.reading() as connection:
        steps = [
            str(step[3])
            for text, values in asked
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
        ]
    return [step for step in steps if step in WHOLE_TABLES]
