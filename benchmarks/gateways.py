"""The gateways that are compared, each a process pinned to the clients' core with the provider behind it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from .rounds import ROOT, Unavailable, pinned

__all__ = ["GATEWAYS", "Gateway"]

_PATIENCE: Final = 60.0  # seconds until a gateway must listen
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Gateway:
    """A running gateway: its port, the path of its chat completions, and what its process has used."""

    model_prefix = ""
    path = "/v1/chat/completions"

    def __init__(self, provider: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-"))
        self.port = _free_port()
        environment = {**os.environ, **self.environment(provider)}
        self._said = (self.folder / "said").open("w+b")
        self._process = subprocess.Popen(
            self.command(provider),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            preexec_fn=_pin,
        )
        self._wait()

    def command(self, provider: int) -> list[str]:
        """What is run."""
        raise NotImplementedError

    def environment(self, provider: int) -> dict[str, str]:  # noqa: ARG002
        """What the process finds in its environment."""
        return {}

    @property
    def pids(self) -> list[int]:
        """The processes that do the work."""
        return [self._process.pid]

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far, user and system."""
        found = 0.0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found += (int(fields[11]) + int(fields[12])) / _TICKS
        return found

    @property
    def resident(self) -> int:
        """Bytes of resident memory."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids) * os.sysconf(
            "SC_PAGE_SIZE"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()[-3:]
        self.__exit__(None, None, None)
        raise RuntimeError(f"{type(self).__name__} does not listen: {' | '.join(said)}")


class Direct(Gateway):
    """No gateway: what the load itself costs and sees."""

    def __init__(self, provider: int) -> None:
        self.port = provider

    @property
    def pids(self) -> list[int]:
        return []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Nginx(Gateway):
    """nginx as a plain proxy that passes on what comes: no parsing, nothing kept."""

    def command(self, provider: int) -> list[str]:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            raise Unavailable("nginx")
        (self.folder / "nginx.conf").write_text(
            f"""daemon off; master_process off; pid {self.folder}/pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy;
  fastcgi_temp_path {self.folder}/f; uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
  upstream provider {{ server 127.0.0.1:{provider}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{self.port} backlog=4096;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""
        )
        return [program, "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)]


class Scheduler(Gateway):
    """``mas serve`` with its SQLite store."""

    model_prefix = "provider/"
    store = "sqlite:///{folder}/mas.db"

    def command(self, provider: int) -> list[str]:
        (self.folder / "mas.toml").write_text(
            f"""[agents.provider]
type = "openai"
api_key_env = "BENCHMARK_KEY"
base_url = "http://127.0.0.1:{provider}/v1"
max_concurrent = 10000

[server]
max_connections = 10000
max_streams = 10000
"""
        )
        store = self.store.format(folder=self.folder)
        arguments = ["serve", "--port", str(self.port), "--config", str(self.folder / "mas.toml"), "--store", store]
        return [sys.executable, "-m", "multi_agent_scheduler", *arguments]

    def environment(self, provider: int) -> dict[str, str]:  # noqa: ARG002
        return {"BENCHMARK_KEY": "none"}


class SchedulerInMemory(Scheduler):
    """``mas serve`` with nothing kept on disk."""

    store = "memory://"


class Framework(Gateway):
    """FastAPI, sse-starlette and the openai SDK."""

    def command(self, provider: int) -> list[str]:  # noqa: ARG002
        arguments = ["--port", str(self.port), "--log-level", "error", "--loop", "uvloop", "--http", "httptools"]
        return [sys.executable, "-m", "uvicorn", "benchmarks.peer_app:app", *arguments]

    def environment(self, provider: int) -> dict[str, str]:
        return {"OPENAI_BASE_URL": f"http://127.0.0.1:{provider}/v1"}


GATEWAYS: Final[dict[str, Callable[[int], Gateway]]] = {
    "direct": Direct,
    "nginx": Nginx,
    "mas serve": Scheduler,
    "mas serve, memory": SchedulerInMemory,
    "FastAPI + openai SDK": Framework,
}


def _pin() -> None:
    cpu = pinned("client")
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
