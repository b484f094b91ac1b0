# SPDX-License-Identifier: Apache-2.0
"""Live images in a browser on this machine: a page with an MJPEG stream (``multipart/x-mixed-replace``).

Bound to 127.0.0.1; refuses foreign Host headers (DNS rebinding). Encodes nothing without a viewer.
"""

from __future__ import annotations

import errno
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
JPEG_QUALITY = 80
_BOUNDARY = "frame"
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>canet_ros, live</title>
<meta name="viewport" content="width=device-width">
<style>body{{margin:0;height:100vh;display:flex;flex-direction:column;background:#111;color:#ccc;font:16px sans-serif}}
img{{flex:1;min-height:0;object-fit:contain}}p{{margin:8px;text-align:center}}
span{{white-space:nowrap;margin:0 8px}}i{{display:inline-block;width:12px;height:12px;margin-right:4px}}</style>
<img src="/stream" alt="The camera image with the classes over it"><p>{legend}</p></html>
"""


class LiveView:
    """Serves the newest frame to any number of browsers; slow viewers skip frames.

    Args:
        classes: named in the legend below the image.
        port: 0 selects a free port.

    Attributes:
        address: URL of the page.

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, classes: ClassTable, port: int = 0) -> None:
        entries = map(_legend_entry, classes.names, classes.colors)
        self.page = _PAGE.format(legend=" ".join(entries)).encode()
        self._changed = threading.Condition()
        self._frame: NDArray[np.uint8] = np.zeros((1, 1), np.uint8)
        self._number = 0
        self._encoded = (0, b"")
        self._closed = False
        try:
            self._server = _Server(self, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(f"--view {port}: the port is in use; 0 selects a free one") from error
            raise
        self.address = f"http://{HOST}:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Set the newest frame, (H, W, 3) BGR or (H, W) uint8; it must not be modified afterwards."""
        with self._changed:
            self._frame = frame
            self._number += 1
            self._changed.notify_all()

    def next_jpeg(self, seen: int) -> tuple[int, bytes] | None:
        """Wait for a frame newer than number ``seen``; return its number and JPEG, None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number != seen)
            if self._closed:
                return None
            if self._encoded[0] != self._number:  # once for all viewers
                encoding = "bgr8" if self._frame.ndim == 3 else "mono8"
                _, jpeg = encode_compressed(self._frame, encoding, "jpeg", JPEG_QUALITY)
                self._encoded = (self._number, jpeg.tobytes())
            return self._encoded

    def close(self) -> None:
        """End every stream and free the port."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a viewer that does not read its stream would block

    def __init__(self, view: LiveView, port: int) -> None:
        self.view = view
        super().__init__((HOST, port), _Handler)

    def handle_error(self, *_: Any) -> None:
        """A disconnected viewer is not an error."""


def _legend_entry(name: str, rgb: tuple[int, int, int]) -> str:
    return f'<span><i style="background:rgb{rgb}"></i>{html.escape(name)}</span>'


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SEND_TIMEOUT_S

    def do_GET(self) -> None:
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self.send_error(403, "Unknown host name")
        elif self.path == "/":
            self._begin("text/html; charset=utf-8")
            self.wfile.write(self.server.view.page)
        elif self.path == "/stream":
            self._begin(f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self._stream()
        else:
            self.send_error(404)

    def _begin(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Cache-Control", "no-store")
        # Other origins may neither embed the images nor frame the page.
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.end_headers()

    def _stream(self) -> None:
        seen = 0
        boundary = f"--{_BOUNDARY}\r\n".encode()
        self.wfile.write(boundary)
        while (frame := self.server.view.next_jpeg(seen)) is not None:
            seen, jpeg = frame
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
            # The boundary follows at once, because browsers show an image when they receive its end.
            self.wfile.write(head + jpeg + b"\r\n" + boundary)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""


def open_live_view(classes: ClassTable, port: int) -> LiveView:
    """Start a live view, print its address, and show it in a browser if there is a desktop. Raises as ``LiveView``."""
    view = LiveView(classes, port)
    print(f"live at {view.address}", file=sys.stderr, flush=True)
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(view.address)
    return view
