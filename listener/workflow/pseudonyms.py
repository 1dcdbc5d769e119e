"""The pseudonyms of a site, for reports that go where patients must not be known."""

from __future__ import annotations

from collections.abc import Sequence

from config.model import Settings
from listener.workflow.delivery import Destinations
from reporting.dicom.deidentification import Pseudonymiser, read_site_key


class SitePseudonyms:
    """Answers `listener.workflow.steps.Pseudonyms`; the key is read when a destination needs it."""

    def __init__(self, settings: Settings, outlets: Destinations) -> None:
        self._settings = settings
        self._outlets = outlets

    def __call__(self, destinations: Sequence[str]) -> Pseudonymiser | None:
        """None when none of these destinations wants pseudonyms; Rejected on a bad key."""
        names = {outlet.name for outlet in self._outlets if outlet.is_pseudonymous}
        return self._make() if names.intersection(destinations) else None

    def check(self) -> None:
        """Raise Rejected at the start rather than at the first report."""
        self([outlet.name for outlet in self._outlets])

    def _make(self) -> Pseudonymiser:
        return Pseudonymiser(
            read_site_key(self._settings.pseudonym_key_file),
            options=self._settings.pseudonyms.options,
            max_date_shift_days=self._settings.pseudonyms.max_date_shift_days,
        )
