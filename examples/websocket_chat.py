"""A chat in the browser over a WebSocket. It runs with no key, on the embedded model:

    python examples/websocket_chat.py                  then open the address that it prints
    python examples/websocket_chat.py --agent claude   with ANTHROPIC_API_KEY set

Needs FastAPI and uvicorn. What a model writes is data: the page puts it in place with textContent, never as HTML.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse

from multi_agent_scheduler import Agent
from multi_agent_scheduler.integrations.fastapi import websocket_stream
from options import chosen, serve

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Chat</title>
<style>
  body { font: 16px/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
  .said { white-space: pre-wrap; padding: .5rem 1rem; border-radius: .5rem; margin: .5rem 0 }
  .user { background: #e8f0fe } .agent { background: #f3f3f3 } .error { color: #b00020 }
  form { display: flex; gap: .5rem } input { flex: 1; font: inherit; padding: .5rem }
</style>
<h1>Chat</h1>
<main id="log" aria-live="polite"></main>
<form id="form"><input id="prompt" placeholder="Say something" autocomplete="off" autofocus>
<button disabled>Send</button></form>
<script>
  const log = document.getElementById("log"), form = document.getElementById("form");
  const prompt = document.getElementById("prompt"), button = form.querySelector("button");
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  let socket, answer;

  function add(kind, text) {
    const said = document.createElement("div");
    said.className = "said " + kind;
    said.textContent = text;
    log.append(said);
    return said;
  }

  function connect() {
    socket = new WebSocket(`${scheme}//${location.host}/stream`);
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "chunk") answer.append(message.data);  // a text node, whatever is in it
      if (message.type === "error") add("error", message.error.message);
      if (message.type !== "chunk") button.disabled = false;
    };
    socket.onclose = () => { button.disabled = true; setTimeout(connect, 1000); };
    socket.onopen = () => { button.disabled = false; };
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    if (button.disabled || !prompt.value.trim()) return;
    add("user", prompt.value);
    answer = add("agent", "");
    button.disabled = true;
    socket.send(prompt.value);
    prompt.value = "";
  };

  connect();
</script>
</html>
"""


def make_app(agent: Agent) -> FastAPI:
    app = FastAPI()

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return PAGE

    @app.websocket("/stream")
    async def stream(websocket: WebSocket) -> None:
        conversation: list[dict[str, str]] = []

        async def answer(prompt: str) -> AsyncIterator[str]:
            conversation.append({"role": "user", "content": prompt})
            text = ""
            async with aclosing(agent.call_stream(conversation, errors="raise")) as chunks:
                async for chunk in chunks:
                    text += chunk
                    yield chunk
            conversation.append({"role": "assistant", "content": text})

        await websocket_stream(websocket, answer)  # a client that leaves stops the model

    return app


if __name__ == "__main__":
    agent, port = chosen("A chat in the browser over a WebSocket.")
    serve(make_app(agent), port)
