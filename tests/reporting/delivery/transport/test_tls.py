"""TLS contexts: only 1.2 and 1.3, certificates both ways, renewal without a restart."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.errors import NeedsReview
from reporting.delivery.transport.tls import (
    ServerContexts,
    TlsFiles,
    client_context,
    server_context,
)
from tests.certificates import Authority, make_authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("ca"))


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str = "localhost") -> str:
    """The protocol that both ends agree on; raises what the client's end raises."""
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    theirs.settimeout(60)

    def accept() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as wrapped:
                wrapped.sendall(b"!")
        except OSError:
            theirs.close()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as wrapped:
            if wrapped.recv(1) != b"!":
                raise ssl.SSLError("the server broke off")
            return str(wrapped.version())
    finally:
        ours.close()
        accepting.join()


class TestThingsThatGoWrong:
    @pytest.mark.parametrize("content", [None, "", "not PEM"])
    def test_a_certificate_that_cannot_be_read_is_told(
        self, tmp_path: Path, content: str | None
    ) -> None:
        path = tmp_path / "own.pem"
        if content is not None:
            path.write_text(content)

        with pytest.raises(NeedsReview) as told:
            client_context(TlsFiles(certificate=path))

        assert told.value.code == "tls_files"

    def test_a_key_of_another_certificate_is_told(self, authority: Authority) -> None:
        one, other = authority.issue("one"), authority.issue("other")

        with pytest.raises(NeedsReview):
            client_context(TlsFiles(certificate=one.certificate, private_key=other.private_key))

    def test_a_server_needs_a_certificate(self) -> None:
        with pytest.raises(NeedsReview):
            server_context(TlsFiles(), require_client_certificate=False)

    def test_required_client_certificates_need_a_ca(self, authority: Authority) -> None:
        files = authority.issue("server")
        alone = TlsFiles(certificate=files.certificate, private_key=files.private_key)

        with pytest.raises(NeedsReview):
            server_context(alone, require_client_certificate=True)


class TestHandshake:
    def test_both_certificates_are_checked(self, authority: Authority) -> None:
        client = client_context(authority.issue("client"))
        server = server_context(authority.issue("server"), require_client_certificate=True)

        assert handshake(client, server) == "TLSv1.3"

    def test_tls_1_2_is_the_oldest(self, authority: Authority) -> None:
        client = client_context(authority.issue("client"))
        server = server_context(authority.issue("server"), require_client_certificate=False)
        server.maximum_version = ssl.TLSVersion.TLSv1_2

        assert handshake(client, server) == "TLSv1.2"
        assert client.minimum_version == server.minimum_version == ssl.TLSVersion.TLSv1_2

    def test_only_forward_secrecy_and_authenticated_encryption(self, authority: Authority) -> None:
        context = client_context(authority.issue("client"))

        older = [one["name"] for one in context.get_ciphers() if one["protocol"] == "TLSv1.2"]
        assert older
        assert all(one.startswith("ECDHE-") for one in older)
        assert all("GCM" in one or "CHACHA20" in one for one in older)

    def test_a_server_of_another_authority_is_refused(
        self, authority: Authority, tmp_path: Path
    ) -> None:
        other = make_authority(tmp_path, "Other CA")
        server = server_context(other.issue("server"), require_client_certificate=False)

        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(client_context(authority.issue("client")), server)

    def test_a_server_with_another_name_is_refused(self, authority: Authority) -> None:
        server = server_context(authority.issue("server"), require_client_certificate=False)

        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(client_context(authority.issue("client")), server, name="pacs.example")

    def test_a_certificate_that_has_ended_is_refused(self, authority: Authority) -> None:
        ended = authority.issue("ended", life=-timedelta(hours=1))
        server = server_context(ended, require_client_certificate=False)

        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(client_context(authority.issue("client")), server)

    def test_a_client_without_a_certificate_is_refused(self, authority: Authority) -> None:
        server = server_context(authority.issue("server"), require_client_certificate=True)
        client = client_context(TlsFiles(ca_certificates=authority.ca_certificates))

        with pytest.raises(OSError):
            handshake(client, server)


class TestRenewal:
    def test_the_same_files_give_the_same_context(self, authority: Authority) -> None:
        contexts = ServerContexts(authority.issue("server"), require_client_certificate=False)

        assert contexts.current() is contexts.current()

    def test_new_files_count_from_the_next_connection_on(self, tmp_path: Path) -> None:
        first = make_authority(tmp_path, "First CA")
        files = first.issue("server")
        contexts = ServerContexts(files, require_client_certificate=False)
        before = contexts.current()

        second = make_authority(tmp_path, "Second CA")
        second.issue("server")

        assert contexts.current() is not before
        trusting_second = client_context(TlsFiles(ca_certificates=second.ca_certificates))
        assert handshake(trusting_second, contexts.current()) == "TLSv1.3"

    def test_broken_files_keep_what_works(self, tmp_path: Path) -> None:
        authority = make_authority(tmp_path)
        files = authority.issue("server")
        contexts = ServerContexts(files, require_client_certificate=False)
        before = contexts.current()

        assert files.certificate is not None
        files.certificate.write_text("half writ")

        assert contexts.current() is before
        assert contexts.problem is not None
        authority.issue("server")
        assert contexts.current() is not before
        assert contexts.problem is None
