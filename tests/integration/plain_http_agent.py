"""A plain HTTP server that knows nothing of Outrider: plain_http_agent.py NAME. It prints its port once it serves."""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = sys.argv[1]
mode = "well"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        global mode
        body = self.read_chunks() if "Transfer-Encoding" in self.headers else self.rfile.read(self.length())
        if self.path.startswith("/mode/"):
            mode = self.path.rpartition("/")[2]
            self.reply(200, {})
        else:
            self.answer(body)

    def do_PUT(self) -> None:
        self.do_POST()

    def length(self) -> int:
        return int(self.headers.get("Content-Length", "0"))

    def read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, body: bytes) -> None:
        if mode == "hang":
            time.sleep(30)
        if mode in ("drip", "cut"):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            for _ in range(100 if mode == "drip" else 1):
                self.wfile.write(b"x")
                time.sleep(0.1)
            self.close_connection = True
            return
        status = int(mode[:3]) if mode[:3].isdigit() else 200
        told = {"name": NAME, "path": self.path, "body": body.decode(), "headers": dict(self.headers.items())}
        self.reply(status, {**told, "connection": self.client_address[1]})

    def reply(self, status: int, document: dict[str, object]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if mode == "503full":
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A caller that gave up is no error."""


server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
