"""Prints what `smearlink status` shows: queues, delayed deliveries and parked work."""

from __future__ import annotations

from datetime import datetime

from listener.cli.console import open_console, print_indented, print_parked, simple_table
from listener.queue.status import WorkflowStatus, age_text
from pipeline.domain import RESEARCH_USE_ONLY


def show_status(status: WorkflowStatus) -> None:
    """Print queues and parked work."""
    console = open_console()
    table = simple_table("Work")
    for name in ("queue", "waiting", "delayed", "in work", "oldest"):
        table.add_column(name, justify="left" if name == "queue" else "right")
    for queue in status.queues:
        counts = (queue.waiting, queue.delayed, queue.in_work)
        table.add_row(queue.name, *map(str, counts), age_text(queue.oldest_age_s))
    console.print(table if status.queues else "Nothing waits.")
    for queue in status.queues:
        if queue.next_attempt_at is not None:
            print_indented(console, _next_attempt(queue.name, queue.next_attempt_at, status.at))
            print_indented(console, f"  {queue.delay_reason}")
    print_parked(console, status.parked)
    console.print(RESEARCH_USE_ONLY, style="dim")


def _next_attempt(queue: str, next_attempt_at: datetime, now: datetime) -> str:
    left_s = max(0.0, (next_attempt_at - now).total_seconds())
    return f"{queue}: tries again in {age_text(left_s)} ({next_attempt_at.astimezone():%H:%M:%S})"
