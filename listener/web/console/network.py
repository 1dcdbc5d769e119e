"""The Network page: how good the network is, first on laboratories that it never learned from."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from listener.web.console.evaluation_figures import COLUMNS, read_evaluation
from listener.web.console.layout import Layout
from listener.web.console.sessions import Visitor
from models.card import read_model_card
from pipeline.domain import DecisionPolicy, ModelIdentity

COLUMN_WORDS = {
    "auc": "AUC",
    "sensitivity": "sensitivity at one half",
    "specificity": "specificity at one half",
    "sensitivity_at_95": "sensitivity at specificity 0.95",
    "called_leukemic": "normal cells called leukemic",
    "referred": "referred",
    "ece": "calibration error",
    "mature_types": "accuracy, five mature types",
    "types": "accuracy, all types",
}


def _nothing(*_: object) -> str:
    """In place of a link, whose words stay."""
    return ""


class NetworkPage:
    """`/network`."""

    def __init__(
        self, *, model: ModelIdentity, policy: DecisionPolicy, folder: Path, layout: Layout
    ) -> None:
        self._model, self._policy, self._folder = model, policy, folder
        self._layout = layout

    async def show(self, _request: Request, visitor: Visitor) -> Response:
        """The page."""
        return await run_in_threadpool(self._page, visitor)

    def _page(self, visitor: Visitor) -> Response:
        return self._layout.page(
            "network.html",
            visitor,
            model=self._model,
            policy=self._policy,
            evaluation=read_evaluation(self._folder / "evaluation.json"),
            card=self._card,
            columns=COLUMNS,
            column_words=COLUMN_WORDS,
        )

    @cached_property
    def _card(self) -> Markup:
        """The model card; HTML in it stays text, and links lead nowhere."""
        card = read_model_card(self._folder)
        if not card:
            return Markup("")
        parser = MarkdownIt("js-default", {"html": False, "linkify": False}).disable("image")
        for rule in ("link_open", "link_close"):
            parser.add_render_rule(rule, _nothing)
        # The parser escapes; its output is what makes this safe to show.
        return Markup(parser.render(card))  # noqa: S704
