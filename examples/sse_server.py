"""Server-sent events, in both ways. It runs with no key, on the embedded model:

    python examples/sse_server.py                      then open the address that it prints
    curl -N 'http://127.0.0.1:8000/stream-sse?prompt=Say+hello'

/stream-sse is a stream for one reader: who leaves stops the model. /tasks starts a task that goes on whoever reads it,
and /streams/ID can be read, left and come back to: a page that loses its connection goes on where it was. Reload it
while it writes, and nothing is lost. Needs FastAPI and uvicorn.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

from multi_agent_scheduler import Agent, MultiAgentScheduler, Task
from multi_agent_scheduler.integrations.fastapi import sse, sse_follow
from options import chosen, serve

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Server-sent events</title>
<style>
  body { font: 16px/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
  form { display: flex; gap: .5rem } input { flex: 1; font: inherit; padding: .5rem }
  #text { white-space: pre-wrap } #state { color: #666 }
</style>
<h1>Server-sent events</h1>
<form id="form"><input id="prompt" value="Write a short story about the sea"><button>Go</button></form>
<p id="state"></p>
<p id="text"></p>
<script>
  const text = document.getElementById("text"), state = document.getElementById("state");
  let source;

  function follow(id) {
    source?.close();
    text.textContent = "";
    source = new EventSource("/streams/" + id);  // the browser reconnects, and says by itself where it was
    source.onopen = () => { state.textContent = "reading"; };
    source.onerror = () => { state.textContent = "connecting again"; };
    source.onmessage = (event) => {
      const record = JSON.parse(event.data);
      if (record.type === "text") text.append(record.text);  // a text node, whatever is in it
      else state.textContent = record.type;
    };
    source.addEventListener("end", () => { source.close(); });
  }

  document.getElementById("form").onsubmit = async (event) => {
    event.preventDefault();
    const prompt = document.getElementById("prompt").value;
    const answer = await fetch("/tasks?" + new URLSearchParams({ prompt }), { method: "POST" });
    const { stream_id } = await answer.json();
    location.hash = stream_id;
    follow(stream_id);
  };

  if (location.hash) follow(location.hash.slice(1));
</script>
</html>
"""


def make_app(agent: Agent) -> FastAPI:
    scheduler = MultiAgentScheduler({"agent": agent})

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with scheduler:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return PAGE

    @app.get("/stream-sse")
    async def stream_sse(prompt: str) -> Response:
        return sse(agent.call_stream(prompt))

    @app.post("/tasks")
    async def start(prompt: str) -> dict[str, str]:
        handle = await scheduler.submit(Task("task", prompt))
        return {"stream_id": handle.stream_id}

    @app.get("/streams/{stream_id}")
    async def stream(stream_id: str) -> Response:
        return sse_follow(scheduler, stream_id)

    return app


if __name__ == "__main__":
    agent, port = chosen("Server-sent events.")
    serve(make_app(agent), port)
