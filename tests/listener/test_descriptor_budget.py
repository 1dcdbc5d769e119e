"""Neither port can take the descriptors of the other, or those that an accepted image needs."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.descriptor_budget import PER_ASSOCIATION, RESERVED, raise_limit, share_out


@given(limit=st.integers(RESERVED + 48, 10**6), associations=st.integers(1, 1024))
def test_all_shares_together_stay_within_the_limit(limit: int, associations: int) -> None:
    shares = share_out(limit, max_associations=associations)

    used = shares.associations * PER_ASSOCIATION + shares.unassociated + shares.web_connections
    assert RESERVED + used <= limit
    assert min(shares.associations, shares.unassociated, shares.web_connections) >= 1


def test_a_usual_limit_gives_all_that_is_wanted() -> None:
    shares = share_out(1024, max_associations=32)

    assert (shares.associations, shares.unassociated, shares.web_connections) == (32, 256, 128)


@pytest.mark.parametrize("limit", [0, 64, 256])
def test_a_tight_limit_leaves_each_port_some(limit: int) -> None:
    shares = share_out(limit, max_associations=32)

    assert min(shares.associations, shares.unassociated, shares.web_connections) >= 8


def test_the_soft_limit_is_raised_and_never_lowered() -> None:
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    raised = raise_limit()

    after, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert after == resource.RLIM_INFINITY or after >= min(before, raised)
    assert hard == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
