# SPDX-License-Identifier: Apache-2.0
"""Live images in a browser on this machine: a page that asks for one image after the other.

Bound to 127.0.0.1; refuses foreign Host headers (DNS rebinding). Encodes nothing without a viewer.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import html
import os
import sys
import threading
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canet_ros.messages.images import encode_compressed
from canet_ros.model.class_table import ClassTable

HOST = "127.0.0.1"
SEND_TIMEOUT_S = 10.0  # a viewer that reads nothing for this long is disconnected
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>canet_ros, live</title>
<meta name="viewport" content="width=device-width">
<style>body{{margin:0;height:100vh;display:flex;flex-direction:column;background:#111;color:#ccc;font:16px sans-serif}}
img{{flex:1;min-height:0;object-fit:contain}}p{{margin:8px;text-align:center}}
span{{white-space:nowrap;margin:0 8px}}i{{display:inline-block;width:12px;height:12px;margin-right:4px}}</style>
<script>function later(image,ms){{setTimeout(()=>image.src="/frame?"+Date.now(),ms)}}</script>
<img src="/frame" onload="later(this,50)" onerror="later(this,500)" alt="The camera image with the classes over it">
<p>{legend}</p></html>
"""


class LiveView:
    """Serves the newest frame to any number of browsers; slow viewers skip frames.

    Args:
        classes: named in the legend below the image.
        port: 0 selects a free port.

    Attributes:
        address: URL of the page.
        frame: the newest, (H, W, 3) BGR or (H, W) uint8.

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, classes: ClassTable, port: int = 0) -> None:
        entries = map(_legend_entry, classes.names, classes.colors)
        self.page = _PAGE.format(legend=" ".join(entries)).encode()
        self.frame: NDArray[np.uint8] | None = None
        try:
            self._server = ThreadingHTTPServer((HOST, port), functools.partial(_Handler, self))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(f"--view {port}: the port is in use; 0 selects a free one") from error
            raise
        self.address = f"http://{HOST}:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Set the newest frame; it must not be modified afterwards."""
        self.frame = frame

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _legend_entry(name: str, rgb: tuple[int, int, int]) -> str:
    return f'<span><i style="background:rgb{rgb}"></i>{html.escape(name)}</span>'


class _Handler(BaseHTTPRequestHandler):
    server: ThreadingHTTPServer
    timeout = SEND_TIMEOUT_S

    def __init__(self, view: LiveView, *arguments: Any) -> None:
        self._view = view
        super().__init__(*arguments)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a viewer that disconnects is not an error
            super().handle()

    def do_GET(self) -> None:
        port, frame = self.server.server_port, self._view.frame
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self.send_error(403, "Unknown host name")
        elif self.path == "/":
            self._send("text/html; charset=utf-8", self._view.page)
        elif self.path.partition("?")[0] == "/frame" and frame is not None:
            _, jpeg = encode_compressed(frame, "bgr8" if frame.ndim == 3 else "mono8", "jpeg")
            self._send("image/jpeg", jpeg.tobytes())
        else:
            self.send_error(404)

    def _send(self, content_type: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Cache-Control", "no-store")
        # Other origins may neither embed the images nor frame the page.
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""


def open_live_view(classes: ClassTable, port: int) -> LiveView:
    """Start a live view, print its address, and show it in a browser if there is a desktop. Raises as ``LiveView``."""
    view = LiveView(classes, port)
    print(f"live at {view.address}", file=sys.stderr, flush=True)
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(view.address)
    return view
