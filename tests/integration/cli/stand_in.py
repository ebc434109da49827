"""`stepwell` with small stand-ins for the web and worker processes: a web that answers, a worker that waits."""

import sys

from app.cli import house, main

WEB = """
import http.server, os
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{}')
    def log_message(self, *_): pass
print('web', os.getpid(), flush=True)
http.server.HTTPServer((os.environ['STEPWELL_HOST'], int(os.environ['STEPWELL_PORT'])), Answers).serve_forever()
"""
WORKER = "import os, signal; print(os.environ['STEPWELL_WORKER_NAME'], os.getpid(), flush=True); signal.pause()"

_real = house.child_command


def _stand_in(*words: str) -> list[str]:
    scripts = {("app.cli", "web"): WEB, ("workers.main",): WORKER}
    return [sys.executable, "-c", scripts[words]] if words in scripts else _real(*words)


house.child_command = _stand_in

if __name__ == "__main__":
    main(prog_name="stepwell")
