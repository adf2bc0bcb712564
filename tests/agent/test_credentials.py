"""A new credential takes the place of the old one, whatever is lost or dies on the way."""

import stat
from functools import partial
from pathlib import Path

import pytest

from towline_agent import enrollment
from towline_agent.credentials import Credentials
from towline_agent.enrollment import Identity


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "credential.json"


def credentials(file: Path, *known: str) -> Credentials:
    identity = Identity("id", *known)
    enrollment.save(file, identity)
    return Credentials(identity, partial(enrollment.save, file))


def after_a_crash(file: Path) -> Credentials:
    identity = enrollment.load(file)
    assert identity is not None
    return Credentials(identity, partial(enrollment.save, file))


def test_a_new_credential_is_tried_by_renewals_and_used_by_all_once_it_was_accepted(file: Path) -> None:
    own = credentials(file, "old")
    own.replace_by("new")
    assert (own.newest, own.current) == ("new", "old")
    own.accepted("old")  # the answer to a call that was sent before
    assert own.current == "old"
    own.accepted("new")
    assert (own.newest, own.current) == ("new", "new")
    assert enrollment.load(file) == Identity("id", "new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_crash_at_any_moment_leaves_a_credential_that_counts(file: Path) -> None:
    own = credentials(file, "old")
    assert after_a_crash(file).newest == "old"
    own.replace_by("new")
    again = after_a_crash(file)
    assert (again.newest, again.current) == ("new", "old")
    again.accepted("new")
    assert after_a_crash(file).current == "new"


def test_a_new_credential_that_is_refused_is_forgotten(file: Path) -> None:
    own = credentials(file, "old", "lost")
    assert not own.refused("lost")
    assert (own.newest, own.current) == ("old", "old")
    assert enrollment.load(file) == Identity("id", "old")


@pytest.mark.parametrize(("known", "used", "for_good"), [(("old",), "old", True), (("old", "new"), "old", False)])
def test_a_refusal_is_for_good_only_while_nothing_is_being_replaced(
    file: Path, known: tuple[str, ...], used: str, for_good: bool
) -> None:
    assert credentials(file, *known).refused(used) is for_good


def test_a_call_that_began_before_the_change_is_repeated(file: Path) -> None:
    own = credentials(file, "old", "new")
    own.accepted("new")
    assert not own.refused("old")
    assert own.refused("new")
