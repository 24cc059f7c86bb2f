"""Who is let in: scopes, keys that come and go, and pages of other sites."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.auth import OPEN, Keyring, allows, is_loopback, needed, refuse_foreign_host, refuse_foreign_origin
from gateway.errors import Forbidden, Unauthorized
from model_store.keys import SCOPES
from model_store.store import ModelStore

LOCAL = "127.0.0.1:8000"

CALLS = {
    ("POST", "/v2/models/m/infer"): {"predict", "admin"},
    ("POST", "/v2/models/m/versions/1/infer"): {"predict", "admin"},
    ("POST", "/v1/models/m:predict"): {"predict", "admin"},
    ("GET", "/v2/models/m"): {"predict", "read", "register", "compile", "admin"},
    ("POST", "/v2/repository/index"): {"predict", "read", "register", "compile", "admin"},
    ("GET", "/v1/models"): {"read", "register", "compile", "admin"},
    ("GET", "/v1/models/m/versions/1"): {"read", "register", "compile", "admin"},
    ("GET", "/v1/jobs/1/events"): {"read", "register", "compile", "admin"},
    ("GET", "/metrics"): {"metrics", "admin"},
    ("POST", "/v1/models/m/versions"): {"register", "admin"},
    ("PUT", "/v1/models/m/aliases/champion"): {"register", "admin"},
    ("POST", "/v1/models/m/versions/1/compile"): {"register", "compile", "admin"},
    ("DELETE", "/v1/jobs/1"): {"register", "compile", "admin"},
    ("DELETE", "/v1/models/m"): {"admin"},
    ("DELETE", "/v1/models/m/versions/1"): {"admin"},
    ("POST", "/v2/repository/models/m/load"): {"admin"},
    ("POST", "/v2/repository/models/m/unload"): {"admin"},
    ("POST", "/v2/logging"): {"admin"},
    ("POST", "/v2/trace/setting"): {"admin"},
    ("POST", "/v2/systemsharedmemory/region/r/register"): {"predict", "admin"},
    ("POST", "/v2/systemsharedmemory/unregister"): {"predict", "admin"},
    ("POST", "/a/route/nobody/thought/of"): {"admin"},
}


@pytest.fixture
def ring(store: ModelStore) -> Iterator[tuple[ModelStore, Keyring]]:
    yield store, Keyring(store.catalog, require=False, named=False)


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize("scope", SCOPES)
def test_every_call_needs_the_scope_it_should(method: str, path: str, scope: str) -> None:
    assert allows((scope,), needed(method, path), path) == (scope in CALLS[method, path])


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/health/live", "/v2/health/ready", "/docs", "/docs/assets/a.js", "/openapi.json"]
)
def test_health_and_documentation_need_no_key(path: str) -> None:
    assert needed("GET", path) == OPEN


def test_a_key_for_one_model_reaches_no_other() -> None:
    mine = ("predict:mine",)
    for path in ("/v2/models/mine/infer", "/v2/models/mine/versions/3/infer", "/v1/models/mine:predict"):
        assert allows(mine, needed("POST", path), path)
    for path in ("/v2/models/other/infer", "/v2/models/mine2/infer", "/v1/models/other:predict"):
        assert not allows(mine, needed("POST", path), path)
    assert not allows(mine, needed("POST", "/v2/repository/index"), "/v2/repository/index")


def test_a_page_of_another_site_may_read_nothing_into_change() -> None:
    refuse_foreign_origin("POST", LOCAL, None)
    refuse_foreign_origin("POST", LOCAL, f"http://{LOCAL}")
    refuse_foreign_origin("GET", LOCAL, "https://evil.example")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for origin in ("https://evil.example", "null", "http://127.0.0.1:9999"):
            with pytest.raises(Forbidden, match="may not change"):
                refuse_foreign_origin(method, LOCAL, origin)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000", "10.0.0.1", "a.localhost"]
)
def test_an_open_gateway_answers_to_addresses_and_localhost(host: str) -> None:
    refuse_foreign_host(host)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", ""])
def test_an_open_gateway_does_not_answer_to_names_a_stranger_could_make(host: str) -> None:
    with pytest.raises(Forbidden, match="keys create"):
        refuse_foreign_host(host)


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)]
)
def test_loopback_is_told_from_the_rest(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_without_keys_it_is_open_and_the_first_key_closes_it(ring: tuple[ModelStore, Keyring]) -> None:
    store, keyring = ring

    async def walk() -> None:
        await keyring.refresh()
        assert keyring.is_open
        assert await keyring.admit("POST", "/v2/models/m/infer", LOCAL, None, None) is None
        made, secret = store.catalog.create_key(["predict"])
        await keyring.refresh()
        assert not keyring.is_open
        with pytest.raises(Unauthorized, match="Bearer"):
            await keyring.admit("POST", "/v2/models/m/infer", LOCAL, None, None)
        with pytest.raises(Unauthorized, match="not valid"):
            await keyring.admit("POST", "/v2/models/m/infer", LOCAL, None, secret[:-1])
        admitted = await keyring.admit("POST", "/v2/models/m/infer", LOCAL, None, secret)
        assert admitted is not None and admitted.id == made.id
        with pytest.raises(Forbidden, match="lacks the scope register"):
            await keyring.admit("POST", "/v1/models/m/versions", LOCAL, None, secret)
        assert await keyring.admit("GET", "/v2/health/ready", "any.name", None, None) is None

    asyncio.run(walk())


def test_a_revoked_key_is_refused_and_the_gateway_stays_closed(ring: tuple[ModelStore, Keyring]) -> None:
    store, keyring = ring

    async def walk() -> None:
        made, secret = store.catalog.create_key(["admin"])
        await keyring.refresh()
        assert await keyring.admit("GET", "/v1/models", LOCAL, None, secret) is not None
        store.catalog.revoke_key(made.id)
        await keyring.refresh()
        assert not keyring.is_open
        with pytest.raises(Unauthorized):
            await keyring.admit("GET", "/v1/models", LOCAL, None, secret)

    asyncio.run(walk())


def test_a_known_key_asks_no_database(ring: tuple[ModelStore, Keyring]) -> None:
    store, keyring = ring

    async def walk() -> None:
        _, secret = store.catalog.create_key(["predict"])
        await keyring.refresh()
        await keyring.admit("POST", "/v2/models/m/infer", LOCAL, None, secret)
        store.close()  # whatever asks it now fails
        for _ in range(3):
            assert await keyring.admit("POST", "/v2/models/m/infer", LOCAL, None, secret) is not None

    asyncio.run(walk())


def test_require_keys_closes_even_before_the_first_key(store: ModelStore) -> None:
    keyring = Keyring(store.catalog, require=True, named=False)

    async def walk() -> None:
        await keyring.refresh()
        with pytest.raises(Unauthorized):
            await keyring.admit("GET", "/v1/models", LOCAL, None, None)

    asyncio.run(walk())
