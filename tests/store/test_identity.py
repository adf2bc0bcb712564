from dataclasses import replace
from typing import Any

from store_samples import Store, a_user

from towline_controlplane.identity import ApiKey, AuditEvent, CredentialKind, SignIn
from towline_controlplane.model import Role
from towline_controlplane.store import api_keys, audit_events, sign_ins, users
from towline_controlplane.store.audit_events import AuditFilter


def _sign_in(number: int, used: int = 0) -> SignIn:
    return SignIn(f"s{number}", "user-1", f"family {number}", f"refresh {number}", 1_000, used or number, 5_000_000)


def _key(number: int, expires: int | None = None) -> ApiKey:
    return ApiKey(f"k{number}", "user-1", "ci", "twk_abc", f"hash {number}", ("runs:*", "*"), 1_000, expires, None)


def test_a_token_counts_until_it_its_sign_in_or_the_version_is_revoked(store: Store) -> None:
    user = a_user(token_version=3)
    store.write(users.insert_user, user)
    assert store.read(users.find_by_token, user.id, 3, "t", "s") == user
    assert store.read(users.find_by_token, user.id, 2, "t", "s") is None
    assert store.read(users.find_by_token, "user-2", 3, "t", "s") is None
    store.write(sign_ins.revoke_token, "s", store.clock.now + 10)
    store.write(sign_ins.revoke_token, "s", store.clock.now + 99)
    assert store.read(users.find_by_token, user.id, 3, "t", "s") is None
    assert store.read(users.find_by_token, user.id, 3, "s", "") is None
    assert store.read(users.find_by_token, user.id, 3, "t", "other") == user
    store.clock.now += 10
    assert store.write(sign_ins.delete_expired) == 1
    store.write(users.raise_token_version, user.id)
    assert store.read(users.find_by_token, user.id, 3, "t", "s") is None
    assert store.read(users.find_by_token, user.id, 4, "t", "s") is not None


def test_the_sign_ins_that_were_used_last_stay(store: Store) -> None:
    store.write(users.insert_user, a_user())
    for number in (1, 2, 3):
        store.write(sign_ins.insert, _sign_in(number), 3)
    store.write(sign_ins.replace_refresh_hash, "s1", "new")
    store.write(sign_ins.insert, _sign_in(4, used=store.clock.now + 1), 3)
    left = [number for number in (1, 2, 3, 4) if store.write(sign_ins.lock_by_family, f"family {number}")]
    assert left == [1, 3, 4]
    first = store.write(sign_ins.lock_by_family, "family 1")
    assert first is not None
    assert (first.refresh_hash, first.use_time) == ("new", store.clock.now)


def test_a_sign_in_that_has_expired_is_not_found_and_deleted(store: Store) -> None:
    store.write(users.insert_user, a_user())
    store.write(sign_ins.insert, _sign_in(1), 3)
    store.clock.now = 5_000_000
    assert store.write(sign_ins.lock_by_family, "family 1") is None
    assert store.write(sign_ins.delete_expired) == 1


def test_a_key_is_found_with_its_user_until_it_expires(store: Store) -> None:
    user = a_user()
    store.write(users.insert_user, user)
    store.write(api_keys.insert, _key(1, expires=2_000_000))
    store.write(api_keys.insert, _key(2))
    assert store.read(api_keys.find_by_hash, "hash 1") == (_key(1, expires=2_000_000), user)
    store.clock.now = 2_000_000
    assert store.read(api_keys.find_by_hash, "hash 1") is None
    assert store.read(api_keys.find_by_hash, "hash 2") == (_key(2), user)
    assert store.read(api_keys.find_by_hash, "hash 3") is None
    assert store.write(api_keys.delete_expired, 2_000_000) == 0
    assert store.write(api_keys.delete_expired, 2_000_001) == 1
    assert [key.id for key in store.read(api_keys.list_of_user, "user-1", "", 9)] == ["k2"]


def test_only_the_owner_deletes_a_key(store: Store) -> None:
    store.write(users.insert_user, a_user())
    store.write(api_keys.insert, _key(1))
    assert not store.write(api_keys.delete_key, "k1", "user-2")
    assert store.write(api_keys.delete_key, "k1", "user-1")
    assert not store.write(api_keys.delete_key, "k1", "user-1")


def test_the_last_admin_is_one_who_can_sign_in(store: Store) -> None:
    for number, role in ((1, Role.ADMIN), (2, Role.ADMIN), (3, Role.USER)):
        store.write(users.insert_user, a_user(f"user-{number}", role=role))
    assert not store.write(users.is_last_admin, "user-1")
    store.write(_disable, "user-2")
    assert store.write(users.is_last_admin, "user-1")
    assert not store.write(users.is_last_admin, "user-2")
    assert not store.write(users.is_last_admin, "user-3")
    assert [user.disabled for user in store.read(users.list_users, "", 9)] == [False, True, False]


def _disable(tx: users.Transaction, user_id: str) -> None:
    users.set_disabled(tx, user_id, disabled=True)


def _event(number: int, user_id: str = "user-1", method: str = "RunService/StartRun") -> AuditEvent:
    target = {"runId": f"r{number}"}
    return AuditEvent(f"e{number}", 0, user_id, CredentialKind.TOKEN, "s", method, target, "::1", "request", "OK")


def test_events_are_listed_from_the_newest_by_user_method_and_time(store: Store) -> None:
    store.write(users.insert_user, a_user())
    store.write(audit_events.insert_many, [_event(1), _event(2, "user-2")])
    first = store.clock.now
    store.clock.now += 10
    store.write(audit_events.insert_many, [_event(3, method="RunService/PauseRun"), _event(4)])

    def listed(before: tuple[int, str] | None = None, limit: int = 9, **wanted: Any) -> list[str]:
        return [event.id for event, _ in store.read(audit_events.list_events, AuditFilter(**wanted), before, limit)]

    assert listed() == ["e4", "e3", "e2", "e1"]
    assert listed(limit=2) == ["e4", "e3"]
    assert listed(before=(first + 10, "e3")) == ["e2", "e1"]
    assert listed(before=(first, "e2"), user_id="user-1") == ["e1"]
    assert listed(user_id="user-1", method="RunService/PauseRun") == ["e3"]
    assert listed(start_time=first + 10) == ["e4", "e3"]
    assert listed(end_time=first + 10) == ["e2", "e1"]
    (newest, email), *_, (_, unknown), _ = store.read(audit_events.list_events, AuditFilter(), None, 9)
    assert newest == replace(_event(4), time=first + 10)
    assert (email, unknown) == ("user-1@example.org", "")
    assert store.write(audit_events.delete_some, first + 10, 1) == 1
    assert listed() == ["e4", "e3", "e2"]
    assert store.write(audit_events.delete_some, first + 10, 9) == 1
    assert store.write(audit_events.delete_some, first + 10, 9) == 0
