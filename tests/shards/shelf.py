"""A store for tests, reached over HTTP: fsspec's `shelf://bucket/key`, and the server of it.

As object storage has it: a file is put whole and has an ETag; there is no renaming, no
appending, no folder. The first `fails_first` times that anything is asked for it fails, and a
key in `deadly` ends the process that reads it, so many times, but not the process SHELF_SAFE.
The client finds the server in SHELF_URL.
"""

import hashlib
import json
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile


class ShelfFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is read in ranges, and put whole when it is closed."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs.cat_file(self.path, start=start, end=end))


class ShelfFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The client."""

    protocol = "shelf"
    root_marker = ""

    def _ask(self, method: str, path: str, **more: Any) -> tuple[bytes, Any]:
        url = f"{os.environ['SHELF_URL']}/{urllib.parse.quote(path)}"
        request = urllib.request.Request(url, method=method, **more)
        request.add_header("X-Process", str(os.getpid()))
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    raise FileNotFoundError(path) from error
                raise RuntimeError(f"the shelf said {error.code}") from error
        if answer.headers.get("X-Die") and os.environ.get("SHELF_SAFE") != str(os.getpid()):
            os._exit(7)
        return body, answer.headers

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: FBT002 - fsspec's
        path = self._strip_protocol(path).rstrip("/")
        files, folders = [], set()
        for info in self._list(path):
            rest = info["name"].removeprefix(path).lstrip("/")
            if "/" in rest:
                folders.add("/".join([path, rest.partition("/")[0]]).lstrip("/"))
            else:
                files.append(info)
        if not files and not folders:
            raise FileNotFoundError(path)
        found = [*files, *({"name": f, "size": 0, "type": "directory"} for f in sorted(folders))]
        return found if detail else [info["name"] for info in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path).rstrip("/")
        found = self.ls(path)
        if [info["name"] for info in found] == [path]:
            return dict(found[0])
        return {"name": path, "size": 0, "type": "directory"}

    def _list(self, prefix: str) -> list[dict[str, Any]]:
        body, _ = self._ask("GET", f"?{prefix}")
        return [
            info
            for info in json.loads(body)
            if info["name"] == prefix or not prefix or info["name"].startswith(f"{prefix}/")
        ]

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        headers = {}
        if start is not None or end is not None:
            headers["Range"] = f"{start or 0}-{'' if end is None else end}"
        return self._ask("GET", self._strip_protocol(path), headers=headers)[0]

    def _open(self, path: str, mode: str = "rb", **more: Any) -> ShelfFile:
        if mode != "rb":
            raise NotImplementedError("a shelf takes whole files: put_file")
        return ShelfFile(self, path, mode, cache_type=more.get("cache_type") or "readahead")

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        with open(lpath, "rb") as file:  # noqa: PTH123
            self._ask("PUT", self._strip_protocol(rpath), data=file.read())

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        self._ask("PUT", self._strip_protocol(path), data=value)

    def rm_file(self, path: str) -> None:
        self._ask("DELETE", self._strip_protocol(path))

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        raise NotImplementedError("a shelf does not copy")


class Server:
    """What stands on the shelf, and who asked for what."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, int]] = []
        """(method, key, process id) of each request that was answered."""
        self.fails_first = 0
        self.down = False
        self.deadly: dict[str, int] = {}
        self.failed: Counter[tuple[str, str, str]] = Counter()
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def answer(self, method: str, key: str, body: bytes, span: str) -> tuple[int, bytes, bool]:
        """Return status, body and whether the reader is to die."""
        asked = (method, key, span)
        if self.down or self.failed[asked] < self.fails_first:
            self.failed[asked] += 1
            return 503, b"", False
        if key.startswith("?"):
            return 200, json.dumps(self.listing()).encode(), False
        if method == "PUT":
            self.held[key] = body
            return 200, b"", False
        if key not in self.held:
            return 404, b"", False
        if method == "DELETE":
            del self.held[key]
            return 200, b"", False
        first, _, end = span.partition("-")
        die = self.deadly.get(key, 0) > 0
        self.deadly[key] = self.deadly.get(key, 0) - die
        return 200, self.held[key][int(first or 0) : int(end) if end else None], die

    def listing(self) -> list[dict[str, Any]]:
        return [
            {
                "name": key,
                "size": len(held),
                "type": "file",
                "ETag": hashlib.sha256(held).hexdigest()[:16],
            }
            for key, held in sorted(self.held.items())
        ]


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply("GET")

        def do_PUT(self) -> None:
            self.reply("PUT")

        def do_DELETE(self) -> None:
            self.reply("DELETE")

        def reply(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            key = urllib.parse.unquote(self.path.removeprefix("/"))
            with server.lock:
                status, found, die = server.answer(
                    method, key, body, self.headers.get("Range") or ""
                )
                if status == 200:
                    process = int(self.headers.get("X-Process") or 0)
                    server.asked.append((method, key, process))
            self.send_response(status)
            self.send_header("Content-Length", str(len(found)))
            if die:
                self.send_header("X-Die", "yes")
            self.end_headers()
            self.wfile.write(found)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
