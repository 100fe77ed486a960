"""Streams in a Flask app, under any WSGI server. It runs with no key, on the embedded model:

    python examples/flask_app.py
    curl -N 'http://127.0.0.1:8000/stream?prompt=Say+hello'                   server-sent events
    curl -X POST 'http://127.0.0.1:8000/tasks?prompt=Say+hello'               a task that goes on whoever reads it
    curl -N 'http://127.0.0.1:8000/streams/ID'                                its records, from where you were

Needs Flask. Each reader takes a thread of the WSGI server for as long as it reads; the streams themselves share one
loop.
"""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.serving import make_server

from multi_agent_scheduler import Agent, MultiAgentScheduler, Task, blocking
from multi_agent_scheduler.integrations.flask import sse, sse_follow
from options import chosen


def make_app(agent: Agent) -> Flask:
    app = Flask(__name__)
    scheduler = MultiAgentScheduler({"agent": agent})

    @app.get("/stream")
    def stream() -> Response:
        return sse(agent.call_stream(request.args["prompt"]))

    @app.post("/tasks")
    def start() -> dict[str, str]:
        handle = blocking.run(scheduler.submit(Task("task", request.args["prompt"])))
        return {"stream_id": handle.stream_id}

    @app.get("/streams/<stream_id>")
    def follow(stream_id: str) -> Response:
        return sse_follow(scheduler, stream_id)

    return app


if __name__ == "__main__":
    agent, port = chosen("Streams in a Flask app.")
    server = make_server("127.0.0.1", port, make_app(agent), threaded=True)
    print(f"Listening on http://127.0.0.1:{server.port} (Ctrl-C stops it)", flush=True)
    server.serve_forever()
