"""Files whose names meet, in each way in which cameras and people name them: no picture is lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from listener.cli.analyse import PictureNames

FILES: Mapping[str, list[str]] = {
    "two-cameras": ["in/a/IMG_0001.JPG", "in/b/IMG_0001.JPG"],
    "raw-and-jpeg": ["in/IMG_0001.tif", "in/IMG_0001.jpg", "in/IMG_0001.png"],
    "capitals": ["in/Field.png", "in/field.png", "in/FIELD.png"],
    "capitals-of-folders": ["in/A/x.png", "in/a/x.png"],
    "two-folders-named": ["in/x.png", "more/x.png", "more/in/x.png"],
    "single-files-of-two-folders": ["far/a/x.png", "far/b/x.png"],
    "named-as-a-picture-of-ours": ["in/x.png", "in/x_annotated.png", "in/x_stages.png"],
    "named-as-a-second-frame": ["in/x.dcm", "in/x_2.dcm", "in/x_2_2.dcm"],
    "named-as-a-numbered-one": ["in/x.png", "in/X.png", "in/x-2.png", "in/X-2.png"],
    "suffix-of-a-suffix": ["in/x.tar.png", "in/x.tar", "in/x.png", "in/x"],
    "uids": ["in/1.2.840.1", "in/1.2.840.2", "in/1.2.840", "in/1.2.840.10"],
    "only-a-suffix-differs-in-capitals": ["in/x.jpg", "in/x.JPG"],
    "blanks": ["in/x .png", "in/x.png", "in/ x.png"],
    "dots-at-the-end": ["in/x..png", "in/x.png", "in/x...png"],
    "table-of-ours": ["in/cells.csv.png", "in/cells.png"],
    "german-sharp-s": ["in/Straße.png", "in/STRASSE.png"],
}
FRAMES = 3


@pytest.mark.invented(kind=5)
@pytest.mark.parametrize("name", FILES)
def test_every_frame_of_every_file_has_a_picture_of_its_own(name: str) -> None:
    paths = [Path(file) for file in FILES[name]]
    names = PictureNames([Path("in"), Path("more")], paths)

    pictures = [
        f"{names.of(path, frame)}_{kind}.png"
        for path in paths
        for frame in range(1, FRAMES + 1)
        for kind in ("annotated", "stages")
    ]

    assert len({one.casefold() for one in pictures}) == len(paths) * FRAMES * 2
    assert not any(Path(one).is_absolute() or ".." in Path(one).parts for one in pictures)
