"""The command line: ``mas``. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C (128 + the signal's number).

A failure is one line on stderr. ``MAS_DEBUG=1`` adds the log, and the traceback of what is a bug. Nothing is imported
before the arguments ask for it: ``mas --version`` waits for nobody.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from ..__about__ import VERSION

__all__ = ["main"]

_CONFIG_HELP: Final = "a mas.toml; default: $MAS_CONFIG, or ./mas.toml if it is there"
_EXAMPLES: Final = """\
examples:
  mas demo                                      three agents at once, with no key
  mas ask "Explain Python async"                the first agent that can be used answers
  git diff | mas ask -a claude -s "Review it"   standard input is the prompt
  mas run plan.yaml                             many tasks, one after the other or at once
  mas doctor                                    which agents can be used, and what is missing

MAS_CONFIG names a mas.toml; MAS_DEBUG=1 shows the log, and where an error comes from.
"""
_ASK_EXAMPLES: Final = """\
examples:
  mas ask "Explain Python async"
  mas ask -a claude -m claude-haiku-4-5 --max-tokens 200 "Name three rivers"
  mas ask --format records "Hello" > answer.ndjson
  mas ask --schema recipe.json --format json "A recipe for pancakes" | jq .title
  mas ask - < question.txt

The answer goes to stdout and nothing else does; a line about it goes to stderr. Ctrl-C stops the provider and keeps
what came.
"""
_RUN_EXAMPLES: Final = """\
examples:
  mas run plan.yaml
  mas run plan.toml --agent claude --store sqlite:///bees.db
  mas run plan.json --format records > all.ndjson

A plan has tasks, each with an id and a prompt (sent as it is) or a template (${ID} is what that task wrote):

  tasks:
    - id: facts
      prompt: List three facts about bees.
    - id: page
      template: "Write a page from these facts: ${facts}"
      depends_on: [facts]

Ctrl-C stops it, and closes every provider; mas resume goes on with what had not ended, as after a run that died.
"""
_STORE_HELP: Final = "sqlite:///FILE; default: $MAS_STORE, the store of mas.toml, or mas.db in your data folder"
_ID_HELP: Final = "of a stream, as mas streams lists them; its first characters are enough, at least 6"
_DOCTOR_NOTE: Final = (
    "Asks nobody anything: only what is installed and set is looked at. Exit code 1 if no agent can be used."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    _replace_closed_streams()
    debug = bool(os.environ.get("MAS_DEBUG"))
    try:
        code = _run(arguments, debug=debug)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has gone: there is nobody to tell
        code = 1
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if debug:
            raise
        code = _explain(error)
    if code:
        _drop_unwritten()
    return code


def _run(arguments: Sequence[str] | None, *, debug: bool) -> int:
    parser = _parser()
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as leaving:  # --help, --version, wrong usage
        return leaving.code if isinstance(leaving.code, int) else 1
    if parsed.command is None:
        parser.print_help(sys.stderr)
        return 2
    _set_up_log(debug=debug)
    command: Callable[[argparse.Namespace], int] = parsed.command
    return command(parsed)


def _explain(error: Exception) -> int:
    """One line for a failure, and its exit code."""
    from ..errors import CallerError, InvalidConfiguration, SchedulerError
    from .terminal import complain

    if isinstance(error, SchedulerError):
        complain(str(error))
        return 2 if isinstance(error, CallerError) and not isinstance(error, InvalidConfiguration) else 1
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        complain(f"{named}{error.strerror}")
        return 1
    complain(f"this is a bug ({type(error).__name__}: {error}); MAS_DEBUG=1 shows where: please report it")
    return 1


def _set_up_log(*, debug: bool) -> None:
    import logging

    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)6.0f ms %(name)s: %(message)s")
        return
    log = logging.getLogger("multi_agent_scheduler")
    if not log.handlers:  # without any handler, Python would write warnings and tracebacks to stderr
        log.addHandler(logging.NullHandler())


def _replace_closed_streams() -> None:
    """Put something in the place of a standard stream that was closed before we began (``mas ask >&-``)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open for as long as we live


def _drop_unwritten() -> None:
    """What could not be written must not be tried again at the end of the process, where it would complain or hang."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mas",
        description="Ask LLM agents, and watch what they say as they say it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mas {VERSION}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_ask(commands)
    _add_run(commands)
    _add_resume(commands)
    _add_streams(commands)
    _add_watch(commands)
    _add_cancel(commands)
    _add_serve(commands)
    _add_keys(commands)
    _add_doctor(commands)
    _add_demo(commands)
    return parser


def _add_ask(commands: argparse._SubParsersAction[_Parser]) -> None:
    ask = commands.add_parser(
        "ask",
        help="ask an agent and stream its answer to stdout",
        description="Ask an agent and stream its answer to stdout.",
        epilog=_ASK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    ask.add_argument("prompt", nargs="?", help="what to ask; without it, or with -, standard input is read")
    ask.add_argument(
        "--agent", "-a", metavar="NAME", help="which agent (mas doctor lists them); default: the first usable"
    )
    ask.add_argument("--model", "-m", metavar="NAME", help="the provider's name of the model")
    ask.add_argument("--max-tokens", type=int, metavar="N", help="the most tokens to write")
    ask.add_argument("--system", "-s", metavar="TEXT", help="the system prompt")
    ask.add_argument("--temperature", type=float, metavar="T", help="0 is the least random")
    ask.add_argument("--schema", metavar="FILE", help="the answer must be an object that fits this JSON Schema")
    ask.add_argument(
        "--ask-again", type=int, metavar="N", help="with --schema: so often if the answer does not fit (0)"
    )
    ask.add_argument(
        "--format",
        choices=("text", "records", "json"),
        default="text",
        help="records: one JSON record a line; json: with --schema, the whole object on one line, at the end",
    )
    ask.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)
    ask.add_argument("--quiet", "-q", action="store_true", help="nothing on stderr but errors")

    def run(parsed: argparse.Namespace) -> int:
        from . import ask as command

        return command.run(parsed)

    ask.set_defaults(command=run)


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    run_plan = commands.add_parser(
        "run",
        help="run a plan of tasks from a file",
        description="Run a plan of tasks from a file, and watch what each of them says.",
        epilog=_RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run_plan.add_argument("plan", metavar="PLAN", help="a file that ends in .yaml, .toml or .json")
    run_plan.add_argument(
        "--agent", "-a", metavar="NAME", help="the agent of tasks that name none; default: the first usable"
    )
    run_plan.add_argument(
        "--format",
        choices=("text", "records", "json"),
        default="text",
        help="records: one JSON record a line, with its task_id and stream_id; json: all results, at the end",
    )
    run_plan.add_argument("--store", metavar="URL", help=_STORE_HELP)
    run_plan.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)

    def run(parsed: argparse.Namespace) -> int:
        from . import run as command

        return command.run(parsed)

    run_plan.set_defaults(command=run)


def _add_resume(commands: argparse._SubParsersAction[_Parser]) -> None:
    resume = commands.add_parser(
        "resume",
        help="go on with what a run that died or was stopped has left",
        description="Go on with what a run that died or was stopped has left: what had said nothing runs as if nothing "
        "had been, a task of a plan that had said something begins again, any other ends as interrupted.",
        allow_abbrev=False,
    )
    resume.add_argument("--store", metavar="URL", help=_STORE_HELP)
    resume.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)

    def run(parsed: argparse.Namespace) -> int:
        from . import resume as command

        return command.run(parsed)

    resume.set_defaults(command=run)


def _add_streams(commands: argparse._SubParsersAction[_Parser]) -> None:
    streams = commands.add_parser(
        "streams",
        help="list the newest streams, also while another process runs them",
        description="List the newest streams, also while another process runs them.",
        allow_abbrev=False,
    )
    streams.add_argument("--limit", "-n", type=_positive, default=20, metavar="N", help="how many; default: 20")
    streams.add_argument("--format", choices=("text", "json"), default="text", help="json: all that is known of each")
    streams.add_argument("--store", metavar="URL", help=_STORE_HELP)

    def run(parsed: argparse.Namespace) -> int:
        from . import streams as command

        return command.streams(parsed)

    streams.set_defaults(command=run)


def _add_watch(commands: argparse._SubParsersAction[_Parser]) -> None:
    watch = commands.add_parser(
        "watch",
        help="follow a stream to its end, also while another process runs it",
        description="Follow a stream to its end, also while another process runs it. Ctrl-C stops watching, and "
        "changes nothing for the stream.",
        allow_abbrev=False,
    )
    watch.add_argument("id", metavar="ID", help=_ID_HELP)
    watch.add_argument("--after", type=_not_negative, default=0, metavar="SEQ", help="only what is behind this record")
    watch.add_argument("--format", choices=("text", "records"), default="text", help="records: one JSON record a line")
    watch.add_argument("--store", metavar="URL", help=_STORE_HELP)

    def run(parsed: argparse.Namespace) -> int:
        from . import streams as command

        return command.watch(parsed)

    watch.set_defaults(command=run)


def _add_cancel(commands: argparse._SubParsersAction[_Parser]) -> None:
    cancel = commands.add_parser(
        "cancel",
        help="stop a stream, also while another process runs it",
        description="Stop a stream, also while another process runs it.",
        allow_abbrev=False,
    )
    cancel.add_argument("id", metavar="ID", help=_ID_HELP)
    cancel.add_argument("--store", metavar="URL", help=_STORE_HELP)

    def run(parsed: argparse.Namespace) -> int:
        from . import streams as command

        return command.cancel(parsed)

    cancel.set_defaults(command=run)


def _add_serve(commands: argparse._SubParsersAction[_Parser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="the agents behind HTTP, for browsers and programs",
        description="Serve the agents over HTTP: the OpenAI, Anthropic and AI SDK protocols, and a native API whose "
        "streams can be left and come back to. On this machine alone, unless there are keys (mas keys).",
        allow_abbrev=False,
    )
    serve.add_argument("--host", metavar="NAME", help="where to listen; default: 127.0.0.1, or [server] of mas.toml")
    serve.add_argument("--port", type=_port, metavar="N", help="default: 8000; 0 takes a free one, and says which")
    serve.add_argument("--store", metavar="URL", help=_STORE_HELP)
    serve.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)

    def run(parsed: argparse.Namespace) -> int:
        from . import serve as command

        return command.run(parsed)

    serve.set_defaults(command=run)


def _add_keys(commands: argparse._SubParsersAction[_Parser]) -> None:
    keys = commands.add_parser(
        "keys",
        help="make, list and revoke the keys of mas serve",
        description="Make, list and revoke the keys of mas serve. A server that runs takes note at once.",
        allow_abbrev=False,
    )
    actions = keys.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a key, and print it once, alone, on stdout", allow_abbrev=False)
    create.add_argument("name", metavar="NAME", help="what to call it")
    create.add_argument("--owner", metavar="NAME", help="whose streams it makes and reads; default: its own name")
    create.add_argument("--requests-per-minute", type=_positive, metavar="N", help="the most that it may start")
    create.add_argument("--tokens-per-minute", type=_positive, metavar="N", help="the most that it may use")
    create.add_argument("--cost", type=float, metavar="USD", help="the most that it may spend, in US dollars")
    create.add_argument("--streams", type=_positive, metavar="N", help="the most to read, and to have running, at once")
    create.add_argument("--pace", metavar="PACE", help="no faster than this for its readers: 50/s, 50 tokens/s")
    listing = actions.add_parser("list", help="the keys there are, without the keys themselves", allow_abbrev=False)
    revoke = actions.add_parser("revoke", help="make a key worthless", allow_abbrev=False)
    revoke.add_argument("name", metavar="NAME", help="as mas keys list names it")
    for parser, action in ((create, "create"), (listing, "list_all"), (revoke, "revoke")):
        parser.add_argument("--store", metavar="URL", help=_STORE_HELP)
        parser.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)

        def run(parsed: argparse.Namespace, action: str = action) -> int:
            from . import keys as command

            code: int = getattr(command, action)(parsed)
            return code

        parser.set_defaults(command=run)


def _port(text: str) -> int:
    number = _not_negative(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"it must be a whole number from 0 to 65535, not {text!r}")
    return number


def _positive(text: str) -> int:
    return _whole(text, 1)


def _not_negative(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"it must be a whole number from {least}, not {text!r}")
    return number


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="list every agent, whether it can be used, and what is missing",
        description="List every agent, whether it can be used, and what is missing.",
        epilog=_DOCTOR_NOTE,
        allow_abbrev=False,
    )
    doctor.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)

    def run(parsed: argparse.Namespace) -> int:
        from . import doctor as command

        return command.run(parsed)

    doctor.set_defaults(command=run)


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="three agents at once, live, from the embedded model; no key needed",
        description="Three agents at once, live, each over another provider's protocol, all answered by the embedded "
        "model in this process. No key and no network needed.",
        allow_abbrev=False,
    )
    demo.add_argument("--max-tokens", type=int, default=160, metavar="N", help="the most tokens an agent writes")
    demo.add_argument("--svg", metavar="FILE", help="also save the last screen as a picture")

    def run(parsed: argparse.Namespace) -> int:
        from . import demo as command

        return command.run(parsed)

    demo.set_defaults(command=run)
