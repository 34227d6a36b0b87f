"""`python -m engine.models`: fetch, plan, verify, sign, quantize and list models, and make keys to sign them with.

Exit code 0 when it is good, 2 for a verification that failed or a plan that does not fit, 3 when the tool itself
failed: bad arguments or settings, a model that cannot be had, a file that cannot be written; 130 after Ctrl-C. What is
asked for goes to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args

from engine.config import load_settings
from engine.errors import ConsoleError
from engine.models import commands
from engine.models.commands import BAD, GOOD
from engine.models.spec import Attention, Device, DType, Granularity, Scheme
from engine.weights.keys import PASSWORD_VARIABLE

BROKEN, INTERRUPTED = 3, 130
_PROGRESS_PAUSE_S = 0.5
_KEY_HELP = f"an elliptic key in PEM; its password, if it has one, in the environment's {PASSWORD_VARIABLE}"
_NEW_KEY_HELP = (
    "the new private key, encrypted with the password typed in or in the environment's "
    f"{PASSWORD_VARIABLE}; the public one comes beside it with the suffix .pub"
)

logger = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit 3: argparse's own 2 means a model that is not good here."""
        self.print_usage(sys.stderr)
        self.exit(BROKEN, f"{self.prog}: {message}\n")


class Progress:
    """Prints to stderr: rewrites one line of a terminal; elsewhere a line a stage and one every ten percent."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._printed_s = 0.0
        self._last: tuple[str, int] | None = None
        self._has_open_line = False

    def __call__(self, stage: str, fraction: float | None) -> None:
        if sys.stderr is None:
            return
        share = "" if fraction is None else f" {fraction:.0%}"
        if self._is_terminal:
            now_s = time.monotonic()
            if now_s - self._printed_s >= _PROGRESS_PAUSE_S:
                self._printed_s, self._has_open_line = now_s, True
                print(f"\r\x1b[K{stage}{share}", end="", file=sys.stderr, flush=True)
            return
        step = (stage.split(":")[0], -1 if fraction is None else int(fraction * 10))
        if step != self._last:
            self._last = step
            print(f"{stage}{share}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line that is being rewritten."""
        if self._has_open_line:
            print(file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked and return the exit code."""
    options = _parse(arguments)
    progress = Progress()
    try:
        settings = load_settings({"home": options.home} if options.home else None)
        outcome = options.run(commands.Task(options, settings, progress))
        progress.close()
        _print(json.dumps(outcome.data, indent=2, ensure_ascii=False) if options.json else outcome.text)
    except ConsoleError as error:
        progress.close()
        return _refuse(str(error), BROKEN)
    except KeyboardInterrupt:
        progress.close()
        return _refuse("interrupted", INTERRUPTED)
    except Exception:
        logger.exception("that could not be done; this is a fault of the tool")
        return BROKEN
    return GOOD if outcome.is_good else BAD


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m engine.models", description=(__doc__ or "").split("\n", 1)[0])
    parser.epilog = "Exit code: 0 good, 2 verification failed or plan does not fit, 3 the tool itself failed."
    tools = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("--home", type=Path, help="the console's folder (default: as in the settings)")

    def add(name: str, run: commands.Command, words: str) -> argparse.ArgumentParser:
        tool = tools.add_parser(name, parents=[common], help=words, description=words)
        tool.set_defaults(run=run)
        return tool

    add("list", commands.list_cache, "list what is in the weights cache")
    pull = add("pull", commands.pull, "fetch a model into the weights cache")
    pull.add_argument("source", help="a hub id (OWNER/NAME, @REVISION to pin one), or what a model is loaded from")
    _add_plan(add("plan", commands.plan, "tell whether a model fits into memory, from its headers alone"))
    _add_verify(add("verify", commands.verify, "verify a model's signature, or the whole weights cache"))
    _add_keygen(add("keygen", commands.keygen, "make a key pair to sign models with; nothing is overwritten"))
    _add_sign(add("sign", commands.sign, "sign every file of a model folder"))
    _add_quantize(add("quantize", commands.quantize, "quantize a model and save it as a folder"))
    return parser.parse_args(arguments)


def _add_placement(tool: argparse.ArgumentParser) -> None:
    tool.add_argument("source", help="a model folder, a .gguf file, a hub id, or `sample`")
    tool.add_argument("--device", choices=get_args(Device), default="auto", help="default: a GPU where there is one")
    tool.add_argument("--dtype", choices=get_args(DType), default="auto", help="what is not quantized is held in this")
    tool.add_argument("--granularity", type=Granularity, metavar="|".join(Granularity), help="what shares a scale")
    tool.add_argument("--group-size", type=_positive, metavar="N", help="inputs that share a scale, for group")
    mapping = tool.add_mutually_exclusive_group()
    mapping.add_argument("--affine", action="store_true", help="with a zero point")
    mapping.add_argument("--symmetric", action="store_true", help="without one")
    tool.add_argument("--keep", action="append", metavar="LAYER", help="stays in high precision; may be repeated")


def _add_plan(tool: argparse.ArgumentParser) -> None:
    _add_placement(tool)
    tool.add_argument("--context", type=_positive, metavar="N", help="tokens a request (default: the model's bound)")
    tool.add_argument("--concurrency", type=_positive, metavar="N", default=1, help="requests at once (default: 1)")
    tool.add_argument("--quantization", dest="scheme", type=Scheme, metavar="SCHEME", help=", ".join(Scheme))
    tool.add_argument("--attention", choices=get_args(Attention), default="auto", help="default: sdpa")


def _add_quantize(tool: argparse.ArgumentParser) -> None:
    _add_placement(tool)
    tool.add_argument("--scheme", type=Scheme, required=True, metavar="SCHEME", help=", ".join(Scheme))
    tool.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a folder that is new or empty")


def _add_verify(tool: argparse.ArgumentParser) -> None:
    tool.add_argument("folder", type=Path, nargs="?", help="without it: everything in the weights cache")
    tool.add_argument("--public-key", type=Path, action="append", metavar="FILE", help="may be repeated")
    tool.add_argument("--certificate", type=Path, action="append", metavar="FILE", help="a root; may be repeated")


def _add_sign(tool: argparse.ArgumentParser) -> None:
    tool.add_argument("folder", type=Path)
    tool.add_argument("--private-key", type=Path, required=True, metavar="FILE", help=_KEY_HELP)
    tool.add_argument("--certificate", type=Path, action="append", metavar="FILE", help="of the key, then its issuers")


def _add_keygen(tool: argparse.ArgumentParser) -> None:
    tool.add_argument("private_key", type=Path, metavar="FILE", help=_NEW_KEY_HELP)
    tool.add_argument("--no-password", action="store_true", help="leave the private key unencrypted")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has seen enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(message: str, code: int) -> int:
    print(f"python -m engine.models: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
