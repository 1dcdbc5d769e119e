"""Pictures for pages, drawn when first asked for and kept by what they were made of.

    cache/console/<digest of findings>/blast.jpg            all blasts of a smear, one sprite
                                       blast-heat.jpg       the same under their heat maps
                                       field-3.jpg …        one field: as it is, annotated, small

The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import JPEGBaseline8Bit

from listener.storage.inbox import Inbox
from listener.web.console.galleries import PlacedCell, place_cells
from listener.web.console.smear_files import OpenSmear
from listener.workflow.memory_budget import BYTES_PER_PIXEL_BYTE, MemoryBudget
from pipeline.decoding.frames import ImageLimits, read_frames
from pipeline.domain import RGB, FieldFindings, SmearFindings, SourceImage
from pipeline.errors import NeedsReview, Rejected
from pipeline.findings.review import field_key
from pipeline.rendering.annotated_field import draw_field
from pipeline.rendering.sprite import cut_tile, draw_heat_overlay, draw_sprite, heat_tile
from reporting.content.sign_off import short_review_words

PICTURES = "1"
"""Raised when pictures are drawn in another way, so that old ones are not shown any more."""
DECODERS = 2
RGB_BYTES = 3
QUALITY = 90
THUMB_PX = 360
ALL = "all"
"""In place of a class: the sprite of a reader to whom no suggestion is shown."""


class Pictures:
    """The cache of one site."""

    def __init__(
        self,
        folder: Path,
        inbox: Inbox,
        *,
        limits: ImageLimits,
        most_bytes: int,
        memory: MemoryBudget,
    ) -> None:
        self._folder, self._inbox, self._memory = folder, inbox, memory
        self._limits, self._most_bytes = limits, most_bytes
        self._locks: dict[str, Lock] = {}
        self._guard = Lock()
        self._threads = ThreadPoolExecutor(DECODERS, thread_name_prefix="console-pictures")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def digest(self, opened: OpenSmear) -> str:
        """What the pictures of a smear are kept under: they follow from this alone."""
        smear = opened.smear
        parts = [
            PICTURES,
            smear.model.key,
            # The number of cells changes when a person adds a missed one.
            *(f"{f.sop_instance_uid}#{f.frame}:{len(f.cells)}" for f in smear.fields),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def sprite(self, opened: OpenSmear, cell_class: str, *, is_heat: bool) -> Path:
        """The sprite of a class; Rejected `no_such_file` for a class that the smear has not."""
        placed = place_cells(opened.smear)
        if cell_class == ALL and not is_heat:
            placed = {ALL: all_cells(opened.smear)}
        if cell_class not in placed:
            raise Rejected("This smear has no cell of that class", code="no_such_file")
        ending = "-heat.jpg" if is_heat else ".jpg"
        folder = self._folder_of(opened)

        def draw() -> None:
            self._draw_sprites(opened, placed, folder, ending, is_heat)

        return self._made(folder / f"{cell_class}{ending}", draw)

    def field(self, opened: OpenSmear, number: int, kind: str) -> Path:
        """One field as `original`, `thumb` or `heat`."""
        folder = self._folder_of(opened)
        ending = "png" if kind == "heat" else "jpg"
        path = folder / f"field-{number}-{kind}.{ending}"
        found = opened.smear.fields[number - 1]
        makers: Mapping[str, Callable[[], bytes]] = {
            "original": lambda: self._original(found),
            "thumb": lambda: _jpeg(_small(self._decoded(found).pixels), quality=82),
            "heat": lambda: _png(draw_heat_overlay(found)),
        }

        def draw() -> None:
            with self.memory_for(found):
                _write(path, makers[kind]())

        return self._made(path, draw)

    def annotated(self, opened: OpenSmear, number: int, reviewed: SmearFindings) -> Path:
        """One field with outlines and words as it is sent: with what people decided."""
        found = opened.smear.fields[number - 1]
        by_key = {field_key(field): field for field in reviewed.fields}
        field = by_key.get(field_key(found), found)
        revision = reviewed.review.revision if reviewed.review else 0
        path = self._folder_of(opened) / f"field-{number}-annotated-{revision}.jpg"
        words = short_review_words(reviewed)

        def draw() -> None:
            with self.memory_for(found):
                picture = draw_field(self._decoded(found), field, review_words=words)
                _write(path, _jpeg(picture))

        return self._made(path, draw)

    def crop(self, opened: OpenSmear, cell: PlacedCell, image: SourceImage | None = None) -> bytes:
        """One cell's tile as JPEG."""
        field = opened.smear.fields[cell.field_number - 1]
        source = image if image is not None else self._decoded(field)
        return _jpeg(cut_tile(source, cell.finding, field.scale.um_per_px), quality=95)

    def decoded(self, field: FieldFindings) -> SourceImage:
        """A field's pixels; NeedsReview `image_retired` past its retention period.

        To be used within `memory_for` the field.
        """
        return self._decoded(field)

    def memory_for(self, field: FieldFindings) -> AbstractContextManager[None]:
        """Holds what decoding and drawing a field takes, so that large ones wait for each other."""
        pixels = field.width * field.height
        return self._memory.reserved(pixels * RGB_BYTES * BYTES_PER_PIXEL_BYTE)

    def prune(self) -> None:
        """Delete the pictures that were asked for least lately, down to the room they may take."""
        if not self._folder.is_dir():
            return
        kept = sorted(
            (max(f.stat().st_atime for f in files), sum(f.stat().st_size for f in files), folder)
            for folder in self._folder.iterdir()
            if (files := [file for file in folder.glob("*") if file.is_file()])
        )
        total = sum(size for _, size, _ in kept)
        for _, size, folder in kept:
            if total <= self._most_bytes:
                return
            shutil.rmtree(folder, ignore_errors=True)
            total -= size

    def _folder_of(self, opened: OpenSmear) -> Path:
        return self._folder / self.digest(opened)

    def _made(self, path: Path, draw: Callable[[], None]) -> Path:
        """The file, drawn by the first who asks while the others wait."""
        if path.exists():
            return path
        with self._guard:
            lock = self._locks.setdefault(str(path.parent), Lock())
        with lock:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                draw()
        with self._guard:
            if len(self._locks) > 1000:
                self._locks.clear()
        return path

    def _draw_sprites(
        self,
        opened: OpenSmear,
        placed: Mapping[str, Iterable[PlacedCell]],
        folder: Path,
        ending: str,
        is_heat: bool,
    ) -> None:
        """Every class at once, as each field is decoded once."""
        by_field: dict[int, list[PlacedCell]] = {}
        for cells in placed.values():
            for cell in cells:
                by_field.setdefault(cell.field_number, []).append(cell)

        def cut(number: int) -> list[tuple[PlacedCell, RGB]]:
            field = opened.smear.fields[number - 1]
            um = field.scale.um_per_px
            tiles = []
            with self.memory_for(field):
                image = self._decoded(field)
                for cell in by_field[number]:
                    tile = cut_tile(image, cell.finding, um)
                    tiles.append((cell, heat_tile(tile, cell.finding, um) if is_heat else tile))
                del image
            return tiles

        found: dict[str, list[tuple[int, RGB]]] = {}
        for tiles in self._threads.map(cut, by_field):
            for cell, tile in tiles:
                found.setdefault(cell.cell_class, []).append((cell.sprite_position, tile))

        def write(name: str) -> None:
            tiles = [tile for _, tile in sorted(found[name], key=lambda one: one[0])]
            _write(folder / f"{name}{ending}", _jpeg(draw_sprite(tiles)))

        list(self._threads.map(write, found))

    def _original(self, field: FieldFindings) -> bytes:
        """The device's own JPEG where it sent one that browsers show rightly, else a new one."""
        dataset = self._dataset(field)
        photometric = str(dataset.get("PhotometricInterpretation", ""))
        if dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit and photometric in (
            "YBR_FULL_422",
            "MONOCHROME2",
        ):
            frames = int(dataset.get("NumberOfFrames") or 1)
            return get_frame(dataset.PixelData, field.frame - 1, number_of_frames=frames)
        return _jpeg(self._decoded(field).pixels, quality=95)

    def _dataset(self, field: FieldFindings) -> Dataset:
        try:
            return self._inbox.read(field.sop_instance_uid)
        except Rejected as err:
            raise NeedsReview(
                "The image is past its retention period", code="image_retired"
            ) from err

    def _decoded(self, field: FieldFindings) -> SourceImage:
        for image in read_frames(self._dataset(field), limits=self._limits):
            if image.frame == field.frame:
                return image
        raise NeedsReview("The image lost a frame", code="image_retired")


def all_cells(smear: SmearFindings) -> list[PlacedCell]:
    """Every cell in the order of fields, placed in one sprite that tells no class."""
    cells = [cell for some in place_cells(smear).values() for cell in some]
    ordered = sorted(cells, key=lambda cell: (cell.field_number, cell.number))
    return [
        replace(cell, cell_class=ALL, sprite_position=position)
        for position, cell in enumerate(ordered)
    ]


def _small(pixels: RGB) -> RGB:
    zoom = THUMB_PX / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * zoom)), max(1, round(pixels.shape[0] * zoom))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _jpeg(pixels: RGB, *, quality: int = QUALITY) -> bytes:
    swapped = np.ascontiguousarray(pixels[..., ::-1])
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if quality >= 95:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encoded(".jpg", swapped, options)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return _encoded(".png", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA), [])


def _encoded(ending: str, pixels: Any, options: list[int]) -> bytes:
    _, content = cv2.imencode(ending, pixels, options)
    return content.tobytes()


def _write(path: Path, content: bytes) -> None:
    """Whole or not there; not synced, as it can be drawn again."""
    draft = path.with_name(f".{uuid4().hex}")
    draft.write_bytes(content)
    draft.replace(path)
