"""Which server is meant, and what is said where the URL and the server do not match."""

from __future__ import annotations

import datetime
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ponder import environment
from ponder.client import AsyncPonder, Ponder, PonderAPIError
from ponder.client.address import server_root

from .scripted import ScriptedServer


@pytest.mark.parametrize(
    ("written", "root"),
    [
        ("http://host:8000", "http://host:8000"),
        ("https://host/v1/", "https://host"),
        ("http://host/prefix/v1", "http://host/prefix"),
        ("127.0.0.1:18340", "http://127.0.0.1:18340"),
        ("localhost:8000/v1", "http://localhost:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        (" host ", "http://host"),
    ],
)
def test_what_may_be_written_for_a_server(written: str, root: str) -> None:
    assert server_root(written) == root


@pytest.mark.parametrize(
    "written",
    [
        *("", "http://", "ftp://host", "host:port", "/v1", "256.1.1.1:1"),
        *("http://a..b", f"http://{'a' * 64}", "http://xn--zzzz999"),  # names that no host has
    ],
)
def test_what_is_no_url_says_how_to_write_one(written: str) -> None:
    with pytest.raises(ValueError, match="write http://HOST:PORT"):
        server_root(written)


def test_the_environment_says_the_server_and_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ponder().base_url == environment.DEFAULT_URL
    monkeypatch.setenv("OPENAI_BASE_URL", "http://openai:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    assert (Ponder().base_url, environment.api_key()) == ("http://openai:1", "theirs")
    monkeypatch.setenv("PONDER_URL", "ours:2")
    monkeypatch.setenv("PONDER_API_KEY", " one , two")
    monkeypatch.setenv("PONDER_MODEL", "tiny")
    assert (Ponder().base_url, environment.api_key()) == ("http://ours:2", "one")
    assert environment.model() == "tiny"
    for name in ("PONDER_URL", "PONDER_API_KEY", "PONDER_MODEL"):
        monkeypatch.setenv(name, "")
    assert (Ponder().base_url, environment.model()) == ("http://openai:1", None)
    assert Ponder("other").base_url == "http://other"


def test_the_key_of_the_environment_is_sent(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("authorization"))
        return httpx.Response(200, json=server.models)

    monkeypatch.setenv("PONDER_API_KEY", "one,two")
    for key in (None, "given", ""):
        with Ponder(server.url, key, transport=httpx.MockTransport(handle)) as client:
            client.models()
    assert sent == ["Bearer one", "Bearer given", None]


def test_a_key_that_no_header_carries_is_named() -> None:
    for key in ("schlüssel", "two\nlines"):
        with pytest.raises(ValueError, match="a header carries only printable ASCII"):
            Ponder("host", key)


def test_no_message_repeats_the_password_of_a_url() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"not": "a list"})
        raise httpx.ConnectError("refused")

    with Ponder("http://me:secret@host", transport=httpx.MockTransport(fail)) as client:
        for ask in (client.models, client.savings):
            with pytest.raises(PonderAPIError, match="http://host") as raised:
                ask()
            assert "secret" not in str(raised.value)


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """The test's output is not the place."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(pem + signed.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def tls_port(certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def said_of(url: str) -> str:
    with Ponder(url) as client, pytest.raises(PonderAPIError) as caught:
        client.models()
    assert caught.value.code == "connection_error"
    return caught.value.message


def test_https_to_a_server_that_speaks_http_is_named(server: ScriptedServer) -> None:
    https = server.url.replace("http:", "https:")
    assert said_of(https).endswith(f"if it speaks plain http, write {server.url}")


def test_http_to_a_server_that_speaks_https_is_named(tls_port: int) -> None:
    said = said_of(f"http://127.0.0.1:{tls_port}")
    assert said.endswith(f"if the server speaks https, write https://127.0.0.1:{tls_port}")


def test_http_to_a_proxy_that_speaks_https_is_named() -> None:
    page = "<html><center>The plain HTTP request was sent to HTTPS port</center></html>"
    transport = httpx.MockTransport(lambda _: httpx.Response(400, text=page))
    with (
        Ponder("host", transport=transport) as client,
        pytest.raises(PonderAPIError, match="the server speaks https: write https://"),
    ):
        client.models()


@pytest.mark.parametrize("kind", [Ponder, AsyncPonder])
def test_a_socks_proxy_without_its_extra_is_named(
    kind: type[Ponder] | type[AsyncPonder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(ValueError, match=r"SOCKS proxy .* pip install 'httpx\[socks\]'.*NO_PROXY"):
        kind("host")


def test_a_certificate_that_is_not_trusted_is_named(tls_port: int) -> None:
    said = said_of(f"https://localhost:{tls_port}")
    assert "self-signed certificate" in said
    assert said.endswith("name the file of its authority in SSL_CERT_FILE")
