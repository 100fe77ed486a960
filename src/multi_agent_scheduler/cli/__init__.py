"""The command line: ``mas``. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from ..__about__ import VERSION
from ..errors import CallerError, SchedulerError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except CallerError as error:
        return _say(error, 2)
    except SchedulerError as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has gone: there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _say(error: Exception, code: int) -> int:
    print(f"mas: {error}", file=sys.stderr)  # noqa: T201
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mas", description="Stream from many LLM agents.")
    parser.add_argument("--version", action="version", version=f"mas {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_ask(commands)
    _add_doctor(commands)
    _add_demo(commands)
    return parser


def _add_ask(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ask = commands.add_parser("ask", help="ask an agent and stream its answer to stdout")
    ask.add_argument("prompt", nargs="?", help="what to ask; without it, or with -, standard input is read")
    ask.add_argument("--agent", "-a", metavar="NAME", help="which agent (see: mas doctor); the local model by default")
    ask.add_argument("--model", "-m", help="the provider's name of the model")
    ask.add_argument("--max-tokens", type=int, metavar="N", help="the most tokens to write")
    ask.add_argument("--system", "-s", metavar="TEXT", help="the system prompt")
    ask.add_argument("--temperature", type=float, metavar="T", help="0 is the least random")
    ask.add_argument("--format", choices=("text", "records"), default="text", help="records: one JSON record a line")
    ask.add_argument("--config", metavar="FILE", help="a mas.toml; default: $MAS_CONFIG, or ./mas.toml if it is there")
    ask.add_argument("--quiet", "-q", action="store_true", help="nothing on stderr but errors")

    def run(parsed: argparse.Namespace) -> int:
        from . import ask as command

        return command.run(parsed)

    ask.set_defaults(command=run)


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser("doctor", help="list every agent, whether it can be used, and what is missing")
    doctor.add_argument("--config", metavar="FILE", help="a mas.toml; default: $MAS_CONFIG, or ./mas.toml if it is there")

    def run(parsed: argparse.Namespace) -> int:
        from . import doctor as command

        return command.run(parsed)

    doctor.set_defaults(command=run)


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="three agents at once, live, from the embedded model; no key needed")
    demo.add_argument("--max-tokens", type=int, default=160, metavar="N", help="the most tokens an agent writes")
    demo.add_argument("--svg", metavar="FILE", help="also save the last screen as a picture")

    def run(parsed: argparse.Namespace) -> int:
        from . import demo as command

        return command.run(parsed)

    demo.set_defaults(command=run)
