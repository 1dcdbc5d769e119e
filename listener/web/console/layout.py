"""What all pages share: templates, headers, words for codes, and pages that say no."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from listener.queue.status import age_text
from listener.web.console.permissions import Permission
from listener.web.console.sessions import Visitor
from pipeline.domain import RESEARCH_USE_ONLY
from pipeline.findings.percentages import MIN_CELLS_FOR_PERCENT, has_percentages

CONSOLE_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}

PROBLEMS: Mapping[str, str] = {
    "not_signed_in": "Sign in to see this page.",
    "not_permitted": "Your role does not allow this. An administrator can change it.",
    "cross_site": "The form came from another site and was not taken.",
    "bad_form_token": "The page was open too long, or you signed in again meanwhile. Go back, "
    "reload the page and send the form again.",
    "length_required": "The request does not say how long it is.",
    "request_too_large": "This is more than the site takes at once. Send fewer files at a time.",
    "smear_absent": "There is no such smear, or nothing of it is reported yet.",
    "field_absent": "This smear has no such field.",
    "image_retired": "The image is past its retention period and was deleted. What was found in "
    "it, and the reports, are kept.",
    "smear_with_two_models": "An image of this smear came after its review and was analyzed by "
    "another network, or under another calibration, so that its cells cannot be counted with the "
    "others. The reports that went out stand; send the image as a smear of its own.",
    "no_such_file": "There is no such file.",
    "http_404": "There is nothing at this address.",
    "http_405": "This address does not take this request.",
    "try_later": "The service cannot answer this now. Try again in a moment.",
    "defect": "A fault of our own. It is recorded; nothing was changed.",
}


class Layout:
    """Renders pages; one an application."""

    def __init__(
        self,
        *,
        software_version: str,
        min_cells_for_percent: int = MIN_CELLS_FOR_PERCENT,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._environment = Environment(
            loader=PackageLoader("listener.web.console"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        self._environment.filters |= {
            "age": age_text,
            "moment": moment,
            "percent": percent,
            "plain": plain,
            "size": size,
        }
        self._environment.globals |= {
            "label": RESEARCH_USE_ONLY,
            "software_version": software_version,
            "P": Permission,
            "min_cells_for_percent": min_cells_for_percent,
            "has_percentages": partial(has_percentages, least=min_cells_for_percent),
        }

    def page(
        self,
        template: str,
        visitor: Visitor,
        *,
        csrf: str = "",
        status: int = 200,
        **values: Any,
    ) -> Response:
        """A whole page."""
        text = self._environment.get_template(template).render(
            visitor=visitor, csrf=csrf or visitor.csrf, now=self._clock(), **values
        )
        return HTMLResponse(text, status_code=status, headers=dict(CONSOLE_HEADERS))

    def problem(
        self,
        request: Request,
        status: int,
        code: str,
        *,
        visitor: Visitor,
        detail: str = "",
        back: str = "",
    ) -> Response:
        """A page for people, with a link `back`; a problem document (RFC 9457) for programs."""
        words = detail or PROBLEMS.get(code, "The request was refused.")
        if "text/html" not in request.headers.get("accept", ""):
            body = {"type": "about:blank", "status": status, "title": code, "detail": words}
            return JSONResponse(
                body,
                status_code=status,
                media_type="application/problem+json",
                headers=dict(CONSOLE_HEADERS),
            )
        return self.page(
            "problem.html",
            visitor,
            status=status,
            code=code,
            words=words,
            status_code=status,
            back=back,
        )


def moment(value: datetime | None) -> str:
    """Date and time in UTC."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if value is not None else ""


def percent(share: float | None, digits: int = 1) -> str:
    """0.055 as 5.5 %."""
    return "" if share is None else f"{share * 100:.{digits}f} %"


def plain(word: str) -> str:
    """An enumeration's value as a reader sees it."""
    return str(word).replace("_", " ")


def size(count: float) -> str:
    """Bytes that people can read."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
