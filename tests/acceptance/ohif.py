"""OHIF's prebuilt viewer beside an Orthanc, under one origin as a hospital's proxy would do it."""

from __future__ import annotations

import mimetypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from tests.acceptance.orthanc import LOOPBACK, Orthanc

DIST = Path(__file__).parent / "node_modules" / "@ohif" / "app" / "dist"
SITE_SCRIPT = Path(__file__).parents[2] / "docs" / "ohif" / "smearlink.js"
"""What the site guide asks a site to append to its app-config.js."""
REASON = "OHIF's pages are not installed: bash tests/install_peers.sh"
CONFIG = """
window.config = {
  routerBasename: '/',
  extensions: [],
  modes: [],
  showStudyList: true,
  maxNumberOfWebWorkers: 2,
  showWarningMessageForCrossOrigin: false,
  investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'pacs',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
    sourceName: 'pacs',
    configuration: {
      friendlyName: 'Orthanc of the tests',
      name: 'pacs',
      wadoUriRoot: window.location.origin + '/dicom-web',
      qidoRoot: window.location.origin + '/dicom-web',
      wadoRoot: window.location.origin + '/dicom-web',
      qidoSupportsIncludeField: false,
      imageRendering: 'wadors',
      thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true,
      supportsFuzzyMatching: false,
      supportsWildcard: true,
      omitQuotationForMultipartRequest: true,
    },
  }],
};
"""
FORWARDED = ("accept", "content-type", "host")
"""Orthanc writes the Host into the URLs that it answers with."""


@contextmanager
def serving_ohif(orthanc: Orthanc, *, with_site_script: bool = True) -> Iterator[str]:
    """The base URL of the viewer, as long as the `with` lasts."""
    config = CONFIG + (SITE_SCRIPT.read_text("utf-8") if with_site_script else "")
    # A connection that Orthanc closes when idle would fail the request that is sent on it next.
    fresh = httpx.Limits(max_keepalive_connections=0)
    base_url = f"http://{LOOPBACK}:{orthanc.http_port}"
    with httpx.Client(base_url=base_url, timeout=60, limits=fresh) as client:
        server = _Server((LOOPBACK, 0), _handler(client, config))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://{LOOPBACK}:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: a browser that leaves a page drops what it had asked for."""


def _handler(client: httpx.Client, config: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/dicom-web"):
                self._forward()
            elif path == "/app-config.js":
                self._say(200, "text/javascript", config.encode())
            else:
                self._page(path)

        def _forward(self) -> None:
            headers = {name: self.headers[name] for name in FORWARDED if name in self.headers}
            answer = client.get(self.path, headers=headers)
            kind = answer.headers.get("content-type", "application/octet-stream")
            self._say(answer.status_code, kind, answer.content)

        def _page(self, path: str) -> None:
            file = (DIST / path.lstrip("/")).resolve()
            if not (file.is_relative_to(DIST) and file.is_file()):
                file = DIST / "index.html"
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self._say(200, kind, file.read_bytes())

        def _say(self, status: int, kind: str, content: bytes) -> None:
            self.send_response_only(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    return Handler
