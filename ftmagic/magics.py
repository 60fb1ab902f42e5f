"""The magics: parse the line, call the Python twin, show what it returns. No logic.

Everything heavy is imported when a magic first needs it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments

from ftmagic.cells import CellBrackets, notebook_name
from ftmagic.errors import FtmagicError

Function = TypeVar("Function", bound=Callable[..., Any])

_UNEXPANDED = re.compile(r"\{(.+)\}|\$([A-Za-z_]\w*)")

_loaded: FtMagics | None = None


def load(shell: Any) -> None:
    """Register the magics with a shell; loading again replaces the earlier ones."""
    global _loaded
    unload(shell)
    _loaded = FtMagics(shell)
    shell.register_magics(_loaded)
    _loaded.brackets.install()


def unload(shell: Any) -> None:
    """Remove the magics, stop live views and put every patched function back."""
    global _loaded
    if _loaded is None:
        return
    _loaded.brackets.uninstall()
    for kind in ("line", "cell"):
        for name in _loaded.magics[kind]:
            shell.magics_manager.magics[kind].pop(name, None)
    _loaded = None

    from ftmagic.ui import status
    from ftmagic.wire import seam

    status.stop_all()
    seam.uninstall()


def brief_errors(function: Function) -> Function:
    """Let our own errors show as the message alone; their type survives for `except`."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except FtmagicError as exc:
            lines = [f"{type(exc).__name__}: {exc}"]
            exc._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
            raise

    return wrapper  # type: ignore[return-value]


def parse(magic: Any, line: str) -> Any:
    """Parse a magic's line as a shell would, quotes included.

    Raises:
        UsageError: Unknown options, unclosed quotes, or a `{name}` that IPython left as it is,
            which means that no such variable exists.
    """
    try:
        words = shlex.split(line)
    except ValueError as exc:
        raise UsageError(f"{exc} in {line!r}") from exc
    for word in words:
        left = _UNEXPANDED.fullmatch(word)
        if left:
            raise UsageError(f"name {left[1] or left[2]!r} is not defined (in {word!r})")
    return magic.parser.parse_args(words)


def _tag(text: str) -> tuple[str, str]:
    key, is_pair, value = text.partition("=")
    if not is_pair or not key:
        raise UsageError(f"--tag {text!r}: write it as KEY=VALUE")
    return key, value


class _CaptureSession:
    """A capture for the time of one cell."""

    def __init__(self, capture: Any) -> None:
        self._capture = capture.open()

    def close(self, status: str) -> str:
        self._capture.close(status)
        return str(self._capture.summary())


class _UseSession:
    """A route for the time of one cell."""

    def __init__(self, routed: Any) -> None:
        self._routed = routed
        routed.__enter__()

    def close(self, status: str) -> str:
        self._routed.__exit__(None, None, None)
        return str(self._routed.summary())


def _before_cell() -> None:
    from ftmagic.wire import scope

    scope.set_current(None)  # a sync cell leaks its token into the cells after it
    scope.set_route(None)


@magics_class
class FtMagics(Magics):
    """All magics of ftmagic."""

    def __init__(self, shell: Any) -> None:
        """Make the magics of one shell."""
        super().__init__(shell)
        self.brackets = CellBrackets(shell, ("capture_ft", "use_ft"), _before_cell)

    @magic_arguments()
    @argument("dataset", help="dataset to add to; made if it is new")
    @argument("--split", choices=("train", "validation", "test"), help="split of all examples")
    @argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="tag every call")
    @argument("--replace", action="store_true", help="supersede earlier runs of this cell")
    @argument("--all", action="store_true", help="record calls without tools or JSON format, too")
    @cell_magic
    def capture_ft(self, line: str, cell: str) -> None:
        """Run the cell and record every structured LLM call made in it.

        In Python: `with ft.capture("albums") as seen: ...`.

        Example:
            %%capture_ft albums
            answer = client.chat.completions.parse(...)
        """
        raise UsageError("%%capture_ft must be the first line of the cell")

    @line_magic
    @brief_errors
    def _capture_ft_begin(self, line: str) -> None:
        from ftmagic.recorder import capture

        arguments = parse(FtMagics.capture_ft, line)
        self.brackets.opened(
            _CaptureSession(
                capture(
                    arguments.dataset,
                    split=arguments.split,
                    tags=dict(map(_tag, arguments.tag)),
                    replace=arguments.replace,
                    record_all=arguments.all,
                    cell=self.brackets.cell_identity(),
                    notebook=notebook_name(),
                )
            )
        )

    @magic_arguments()
    @argument("target", help="dataset whose promoted model answers, or a job id")
    @argument("--instead-of", metavar="MODEL", help="reroute only calls that name this model")
    @argument("--strict", action="store_true", help="fail a structured call that cannot go there")
    @cell_magic
    def use_ft(self, line: str, cell: str) -> None:
        """Run the cell with its structured LLM calls sent to the tuned model.

        In Python: `with ft.use("albums") as routed: ...`.

        Example:
            %%use_ft albums
            answer = client.chat.completions.parse(...)
        """
        raise UsageError("%%use_ft must be the first line of the cell")

    @line_magic
    @brief_errors
    def _use_ft_begin(self, line: str) -> None:
        from ftmagic.routing import use

        arguments = parse(FtMagics.use_ft, line)
        routed = use(arguments.target, instead_of=arguments.instead_of, strict=arguments.strict)
        self.brackets.opened(_UseSession(routed))

    @magic_arguments()
    @argument("dataset", help="dataset to train on")
    @argument("--engine", default="local", help="where to train: local (default) or openai")
    @argument("--base-url", help="with --engine openai: any server of its dialect")
    @argument("--model", help="base model; each engine has a default")
    @argument("--approved", action="store_true", help="only rows that somebody approved")
    @argument("--epochs", type=int, help="passes over the rows; the engine decides by default")
    @argument("--batch-size", type=int, help="rows a step; the engine decides by default")
    @argument("--suffix", help="part of the tuned model's name")
    @argument("--again", action="store_true", help="train again although the same job exists")
    @argument("--yes", action="store_true", help="do not ask")
    @argument("--wait", action="store_true", help="stay in this cell until the job has ended")
    @line_magic
    @brief_errors
    def ft_train(self, line: str) -> Any:
        """Fine-tune a model on a dataset: shows the quote, asks, starts, shows the job live.

        In Python: `job = ft.train("albums")`.

        Example:
            %ft_train albums --yes
        """
        from ftmagic.ui import status

        arguments = parse(FtMagics.ft_train, line)
        return status.train(
            arguments.dataset,
            is_confirmed=arguments.yes,
            is_waiting=arguments.wait,
            command=f"%ft_train {line.strip()}",
            engine=arguments.engine,
            base_url=arguments.base_url,
            model=arguments.model,
            approved=arguments.approved,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            suffix=arguments.suffix,
            again=arguments.again,
        )

    @magic_arguments()
    @argument("job", nargs="?", help="job id; without one, all jobs and the newest one live")
    @argument("--engine", help="ask this engine, also for jobs that this machine does not know")
    @argument("--base-url", help="with --engine openai: any server of its dialect")
    @argument("--dataset", help="with --engine: adopt the job for this dataset")
    @argument("--wait", action="store_true", help="stay in this cell until the job has ended")
    @argument("--cancel", action="store_true", help="stop the job")
    @argument("--promote", action="store_true", help="let this job answer for its dataset")
    @argument("--stop-server", action="store_true", help="stop the embedded server")
    @line_magic
    @brief_errors
    def ft_status(self, line: str) -> Any:
        """Show a job live, or all jobs; also after a restart of the kernel.

        In Python: `ft.job(id)`, `ft.jobs()`.

        Example:
            %ft_status
        """
        from ftmagic.ui import status

        arguments = parse(FtMagics.ft_status, line)
        if arguments.stop_server:
            return status.stop_server()
        return status.show(
            arguments.job,
            engine=arguments.engine,
            base_url=arguments.base_url,
            dataset=arguments.dataset,
            is_waiting=arguments.wait,
            is_cancelling=arguments.cancel,
            is_promoting=arguments.promote,
        )

    @magic_arguments()
    @argument("dataset", help="dataset whose test rows are asked")
    @argument("--models", default="base,tuned", help="comma-separated; default base,tuned")
    @argument("--by", metavar="TAG", help="report the values of this tag apart")
    @argument("--split", default="test", help="rows to ask; default test")
    @argument("--ungrounded", action="store_true", help="hold no model to spans of the input")
    @line_magic
    @brief_errors
    def ft_compare(self, line: str) -> Any:
        """Ask the base and the tuned model the test rows, and score both with intervals.

        In Python: `ft.compare("albums")`.

        Example:
            %ft_compare albums --by kind
        """
        from ftmagic.evals import compare

        arguments = parse(FtMagics.ft_compare, line)
        return compare(
            arguments.dataset,
            [name.strip() for name in arguments.models.split(",")],
            by=arguments.by,
            split=arguments.split,
            grounded=not arguments.ungrounded,
        )

    @magic_arguments()
    @argument("--rename", nargs=2, metavar=("OLD", "NEW"), help="give a dataset another name")
    @argument("--copy", nargs=2, metavar=("NAME", "NEW"), help="copy its examples")
    @argument("--delete", metavar="NAME", help="erase a dataset with its calls")
    @line_magic
    @brief_errors
    def ft_datasets(self, line: str) -> Any:
        """List the datasets, or rename, copy or delete one.

        In Python: `ft.datasets()`, `ft.datasets().rename("a", "b")`.
        """
        from ftmagic.dataset import datasets

        arguments = parse(FtMagics.ft_datasets, line)
        if arguments.rename:
            print(datasets().rename(*arguments.rename))
        if arguments.copy:
            print(datasets().copy(*arguments.copy))
        if arguments.delete:
            print(datasets().delete(arguments.delete))
        return datasets()

    @magic_arguments()
    @argument("dataset", help="dataset to write")
    @argument("file", help="OpenAI chat JSONL; its schemas go into a file beside it")
    @argument("--approved", action="store_true", help="only rows that somebody approved")
    @argument("--split", choices=("train", "validation", "test"), help="default: all but test")
    @line_magic
    @brief_errors
    def ft_export(self, line: str) -> Any:
        """Write the trainable rows of a dataset as a training file; test rows are left out.

        In Python: `ft.examples("albums").write("albums.jsonl")`.
        """
        from ftmagic.dataset import trainable

        arguments = parse(FtMagics.ft_export, line)
        rows = trainable(arguments.dataset, arguments.approved).filter(split=arguments.split)
        return rows.write(arguments.file, keeps_test=arguments.split == "test")
