"""Whatever goes wrong in a step comes out with a name, and without what it quoted."""

from __future__ import annotations

import pytest

from listener.workflow.error_boundary import translate_errors
from pipeline.errors import Defect, Rejected, RetryLater


@pytest.mark.parametrize(
    ("raised", "named", "code"),
    [
        (OSError(5, "Doe^Jane.dcm"), RetryLater, "storage_unavailable"),
        (MemoryError("Doe^Jane"), RetryLater, "out_of_memory"),
        (KeyError("Doe^Jane"), Defect, "defect"),
        (RecursionError("Doe^Jane"), Defect, "defect"),
    ],
)
def test_errors_are_named_and_never_repeat_what_they_quoted(
    raised: Exception, named: type[RetryLater | Defect], code: str
) -> None:
    with pytest.raises(named) as caught, translate_errors():
        raise raised

    assert caught.value.code == code
    assert caught.value.__cause__ is raised
    assert "Doe" not in caught.value.message


def test_our_own_errors_pass_as_they_are() -> None:
    ours = Rejected("breaks a rule", code="decode_failed")

    with pytest.raises(Rejected) as caught, translate_errors():
        raise ours

    assert caught.value is ours


def test_a_stop_is_no_error() -> None:
    with pytest.raises(KeyboardInterrupt), translate_errors():
        raise KeyboardInterrupt
