"""The index behind the Smears page: one row a smear, so that 100,000 of them are found at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from listener.web.console.database import SMEAR, ConsoleDatabase
from pipeline.domain import Grade, Interval, QualityFlag, SmearId

PAGE_ROWS = 50
LEAST_STEP_S = 0.001
_LAST = "\U0010ffff"


class ReviewStanding(StrEnum):
    """How far people have come with a smear."""

    NOT_REVIEWED = "not_reviewed"
    IN_REVIEW = "in_review"
    """Acts, and no signature."""
    SIGNED = "signed"
    CHANGED = "changed_after_signature"
    WITHDRAWN = "withdrawn"


class DeliveryStanding(StrEnum):
    """How far a smear's newest results have come, at one destination or at all of them."""

    NONE = "none"
    """Nobody is to get them."""
    ANALYSING = "analysing"
    """There is no report yet."""
    WAITING = "waiting"
    AWAITING_COMMITMENT = "awaiting_commitment"
    DELIVERED = "delivered"
    PARKED = "parked"


_WORST_FIRST = (
    DeliveryStanding.PARKED,
    DeliveryStanding.WAITING,
    DeliveryStanding.AWAITING_COMMITMENT,
    DeliveryStanding.DELIVERED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmearRow:
    """One smear as the list shows it."""

    smear_id: SmearId
    version: int
    """0 while images are analysed and nothing is reported."""
    study_uid: str
    accession: str
    patient_id: str
    patient_name: str
    specimen: str
    pseudonym: str
    device: str
    received_at: datetime
    reported_at: datetime | None
    fields: int
    fields_rejected: int
    cells: int
    counted: int
    blasts: int
    referred: int
    share: Interval | None
    grade: Grade | None
    flags: tuple[QualityFlag, ...]
    deliveries: Mapping[str, DeliveryStanding]
    review: ReviewStanding = ReviewStanding.NOT_REVIEWED
    stamp: str
    """Changes when the files do that the row was made of."""

    @property
    def delivery(self) -> DeliveryStanding:
        """The standing that a person must know first."""
        if not self.version:
            return DeliveryStanding.ANALYSING
        here = set(self.deliveries.values())
        return next((one for one in _WORST_FIRST if one in here), DeliveryStanding.NONE)

    def without_identity(self) -> SmearRow:
        """The same for those who may not know whose smear it is."""
        return replace(self, accession="", patient_id=self.pseudonym, patient_name="", specimen="")


@dataclass(frozen=True, slots=True, kw_only=True)
class SmearFilter:
    """What is asked for; empty asks for everything."""

    grade: str = ""
    device: str = ""
    state: str = ""
    review: str = ""
    since: datetime | None = None
    until: datetime | None = None
    words: str = ""
    """The beginning of an accession number or Patient ID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmearPage:
    """A page of the list."""

    rows: Sequence[SmearRow]
    total: int
    number: int
    """From 1."""

    @property
    def pages(self) -> int:
        """Number of pages, at least one."""
        return max(1, -(-self.total // PAGE_ROWS))


class SmearIndex:
    """Reads and writes the smear table."""

    def __init__(self, database: ConsoleDatabase) -> None:
        self._database = database

    def page(self, asked: SmearFilter, number: int = 1) -> SmearPage:
        """The smears asked for, newest first."""
        where = list(_conditions(asked))
        with self._database.reading() as connection:
            count = sa.select(sa.func.count()).select_from(SMEAR).where(*where)
            total = int(connection.execute(count).scalar_one())
            number = max(1, min(number, -(-total // PAGE_ROWS)))
            query = (
                sa.select(SMEAR)
                .where(*where)
                .order_by(SMEAR.c.received_at.desc(), SMEAR.c.smear_id.desc())
                .limit(PAGE_ROWS)
                .offset((number - 1) * PAGE_ROWS)
            )
            rows = [_row(row) for row in connection.execute(query)]
        return SmearPage(rows=rows, total=total, number=number)

    def find(self, smear_id: str) -> SmearRow | None:
        """The row of one smear."""
        return next(iter(self.some([smear_id])), None)

    def some(self, smear_ids: Sequence[str]) -> list[SmearRow]:
        """The rows of several smears, in no order."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(SMEAR).where(SMEAR.c.smear_id.in_(smear_ids)))
            return [_row(row) for row in rows]

    def devices(self) -> list[str]:
        """Every device that a smear came from."""
        # A loose index scan: DISTINCT alone would walk through all 100,000 rows.
        found: list[str] = []
        with self._database.reading() as connection:
            while len(found) < 200:
                query = sa.select(sa.func.min(SMEAR.c.device)).where(
                    SMEAR.c.device > (found[-1] if found else "")
                )
                following = connection.execute(query).scalar()
                if following is None:
                    return found
                found.append(str(following))
        return found

    def stamps(self) -> dict[str, str]:
        """The stamp of every row, to see which files have changed since."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(SMEAR.c.smear_id, SMEAR.c.stamp))
            return {str(smear_id): str(stamp) for smear_id, stamp in rows}

    def changed_at(self) -> float:
        """When a row changed last; 0 without rows."""
        with self._database.reading() as connection:
            latest = connection.execute(sa.select(sa.func.max(SMEAR.c.changed_at))).scalar()
        return float(latest or 0.0)

    def save(self, rows: Iterable[SmearRow], *, at: datetime) -> None:
        """Put rows in, or in the place of older ones.

        Each change is later than the one before, also when the clock was set back: pages look
        for the latest.
        """
        latest = sa.select(sa.func.max(SMEAR.c.changed_at))
        with self._database.writing() as connection:
            before = float(connection.execute(latest).scalar() or 0.0)
            changed_at = max(at.timestamp(), before + LEAST_STEP_S)
            values = [_values(row, changed_at) for row in rows]
            self._database.upsert_all(connection, SMEAR, values)

    def remove(self, smear_ids: Sequence[str]) -> None:
        """Forget smears whose files are gone."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(SMEAR).where(SMEAR.c.smear_id.in_(smear_ids)))


def _conditions(asked: SmearFilter) -> Iterable[sa.ColumnElement[bool]]:
    if asked.grade:
        yield SMEAR.c.grade == asked.grade
    if asked.device:
        yield SMEAR.c.device == asked.device
    if asked.state:
        yield SMEAR.c.delivery_state == asked.state
    if asked.review:
        yield SMEAR.c.review == asked.review
    if asked.since is not None:
        yield SMEAR.c.received_at >= asked.since.timestamp()
    if asked.until is not None:
        yield SMEAR.c.received_at < asked.until.timestamp()
    if key := _key(asked.words):
        yield sa.or_(
            *(
                sa.and_(column >= key, column < key + _LAST)
                for column in (SMEAR.c.accession_key, SMEAR.c.patient_key)
            )
        )


def _key(words: str) -> str:
    return words.strip().casefold()


def _values(row: SmearRow, changed_at: float) -> dict[str, Any]:
    share = row.share
    return {
        "smear_id": row.smear_id,
        "version": row.version,
        "study_uid": row.study_uid,
        "accession": row.accession,
        "accession_key": _key(row.accession),
        "patient_id": row.patient_id,
        "patient_key": _key(row.patient_id),
        "patient_name": row.patient_name,
        "specimen": row.specimen,
        "pseudonym": row.pseudonym,
        "device": row.device,
        "received_at": row.received_at.timestamp(),
        "reported_at": row.reported_at.timestamp() if row.reported_at else None,
        "fields": row.fields,
        "fields_rejected": row.fields_rejected,
        "cells": row.cells,
        "counted": row.counted,
        "blasts": row.blasts,
        "referred": row.referred,
        "share": share.value if share else None,
        "share_low": share.low if share else None,
        "share_high": share.high if share else None,
        "grade": str(row.grade or ""),
        "flags": ",".join(row.flags),
        "deliveries": json.dumps(dict(row.deliveries)),
        "delivery_state": str(row.delivery),
        "review": str(row.review),
        "stamp": row.stamp,
        "changed_at": changed_at,
    }


def _row(row: sa.Row[Any]) -> SmearRow:
    has_share = row.share is not None
    return SmearRow(
        smear_id=SmearId(row.smear_id),
        version=row.version,
        study_uid=row.study_uid,
        accession=row.accession,
        patient_id=row.patient_id,
        patient_name=row.patient_name,
        specimen=row.specimen,
        pseudonym=row.pseudonym,
        device=row.device,
        received_at=datetime.fromtimestamp(row.received_at, UTC),
        reported_at=datetime.fromtimestamp(row.reported_at, UTC) if row.reported_at else None,
        fields=row.fields,
        fields_rejected=row.fields_rejected,
        cells=row.cells,
        counted=row.counted,
        blasts=row.blasts,
        referred=row.referred,
        share=Interval(value=row.share, low=row.share_low, high=row.share_high)
        if has_share
        else None,
        grade=Grade(row.grade) if row.grade else None,
        flags=tuple(QualityFlag(flag) for flag in row.flags.split(",") if flag),
        deliveries={
            name: DeliveryStanding(word) for name, word in json.loads(row.deliveries).items()
        },
        review=ReviewStanding(row.review or ReviewStanding.NOT_REVIEWED),
        stamp=row.stamp,
    )
