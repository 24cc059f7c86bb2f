"""What every catalog promises of API keys."""

import time

import pytest

from model_store.catalog import Catalog
from model_store.errors import Invalid, NotFound
from model_store.tables import api_keys


def test_a_key_is_found_by_its_secret_and_by_nothing_else(catalog: Catalog) -> None:
    key, secret = catalog.create_key(["predict:digits", "read"], "dashboard")
    other, _ = catalog.create_key(["admin"])
    found = catalog.find_key(secret)
    assert found is not None and (found.id, found.scopes, found.note) == (
        key.id,
        ("predict:digits", "read"),
        "dashboard",
    )
    changed = secret[:20] + ("A" if secret[20] != "A" else "B") + secret[21:]
    for wrong in (
        "",
        "fw_",
        secret[:-1],
        secret + "A",
        secret.upper(),
        changed,
        secret.replace(key.id, other.id),
        "ö" * 70,
    ):
        assert catalog.find_key(wrong) is None


def test_a_secret_looks_as_documented(catalog: Catalog) -> None:
    key, secret = catalog.create_key(["admin"])
    assert secret.startswith(f"fw_{key.id}_") and len(secret) == 3 + 8 + 1 + 43 + 6


def test_a_guess_with_a_right_checksum_is_still_a_guess(catalog: Catalog) -> None:
    from model_store.keys import _check

    key, _ = catalog.create_key(["admin"])
    body = f"fw_{key.id}_{'A' * 43}"
    assert catalog.find_key(body + _check(body)) is None


def test_the_secret_itself_is_nowhere_in_the_database(catalog: Catalog) -> None:
    _, secret = catalog.create_key(["admin"])
    with catalog._database.read() as connection:
        row = connection.execute(api_keys.select()).one()
    assert secret not in str(tuple(row)) and secret[12:55] not in str(tuple(row))


def test_an_expired_key_is_listed_but_not_found(catalog: Catalog) -> None:
    key, secret = catalog.create_key(["read"], expires_at=time.time() - 1)
    assert catalog.find_key(secret) is None
    (listed,) = catalog.keys()
    assert listed.id == key.id
    _, valid = catalog.create_key(["read"], expires_at=time.time() + 3600)
    assert catalog.find_key(valid) is not None


def test_a_revoked_key_is_gone(catalog: Catalog) -> None:
    key, secret = catalog.create_key(["read"])
    catalog.revoke_key(key.id)
    assert catalog.find_key(secret) is None and catalog.keys() == ()
    with pytest.raises(NotFound):
        catalog.revoke_key(key.id)


def test_the_last_use_is_remembered(catalog: Catalog) -> None:
    _, secret = catalog.create_key(["read"])
    assert catalog.keys()[0].last_used_at is None
    catalog.find_key(secret)
    assert catalog.keys()[0].last_used_at == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("scope", ["predicted", "", "predict:", "read:digits", "Admin"])
def test_a_scope_that_does_not_exist_is_refused_with_the_nearest(catalog: Catalog, scope: str) -> None:
    with pytest.raises(Invalid, match="scope"):
        catalog.create_key([scope])
    assert catalog.keys() == ()
