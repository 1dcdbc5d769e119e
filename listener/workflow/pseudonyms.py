"""The pseudonyms of a site, for reports to destinations that get de-identified results."""

from __future__ import annotations

from collections.abc import Sequence

from config.model import Settings
from listener.workflow.destinations import Destinations
from reporting.dicom.deidentification import Pseudonymiser, read_site_key


class SitePseudonyms:
    """A `listener.workflow.steps.Pseudonyms`; the key is read when a destination needs it."""

    def __init__(self, settings: Settings, destinations: Destinations) -> None:
        self._settings = settings
        self._destinations = destinations

    def __call__(self, destinations: Sequence[str]) -> Pseudonymiser | None:
        """None when none of these destinations wants pseudonyms; Rejected on a bad key."""
        names = {
            destination.name for destination in self._destinations if destination.is_pseudonymous
        }
        return self._make() if names.intersection(destinations) else None

    def check(self) -> None:
        """Raise Rejected at the start rather than at the first report."""
        self([one.name for one in self._destinations])

    def _make(self) -> Pseudonymiser:
        return Pseudonymiser(
            read_site_key(self._settings.pseudonym_key_file),
            options=self._settings.pseudonyms.options,
            max_date_shift_days=self._settings.pseudonyms.max_date_shift_days,
        )
