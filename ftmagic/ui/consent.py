"""Asks before anything is sent: with buttons in a notebook, in words in a terminal.

Where nobody can answer (nbclient, papermill, a pipe) it refuses and names `--yes`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ftmagic import render
from ftmagic.errors import ConfigError, FtmagicError, message
from ftmagic.types import Quote
from ftmagic.ui.live import Shown, in_notebook, kernel_shell


def confirm(quote: Quote, on_yes: Callable[[], object] | None = None) -> bool | None:
    """Show a quote and ask whether to train.

    Args:
        quote: What it would take.
        on_yes: In a notebook: called when 'Train' is clicked.

    Returns:
        The answer; None in a notebook, where the answer comes with a click.

    Raises:
        ConfigError: Nobody can be asked.
    """
    if has_buttons() and on_yes is not None:
        start = on_yes
        ask_with_buttons(quote, None, "", lambda display: start())
        return None
    return ask_in_words(quote)


def has_buttons() -> bool:
    """Whether a frontend shows this kernel's output, so that a button can be clicked."""
    return in_notebook() and _takes_input()


def quote_card(quote: Quote, n_test: int | None = None, note: str = "") -> Shown:
    """Make what is shown of a quote."""
    below = f'<p style="opacity:.72;margin:.3em 0">{render.text(note)}</p>' if note else ""
    text = render.quote_text(quote, n_test)
    return Shown(
        render.quote_html(quote, n_test) + below, f"{text}\n{render.plain(note)}" if note else text
    )


def show_quote(quote: Quote, n_test: int | None = None, note: str = "") -> Any:
    """Display a quote, and return the handle of the display."""
    from IPython.display import display

    return display(quote_card(quote, n_test, note), display_id=True)


def ask_with_buttons(
    quote: Quote,
    n_test: int | None,
    note: str,
    on_yes: Callable[[Any], object],
) -> None:
    """Show a quote with two buttons; 'Train' starts the job, in a display of its own below.

    Args:
        quote: What it would take.
        n_test: Test rows that stay here.
        note: How the rows were divided.
        on_yes: Called on a click, with the display that the job's card shall take over.
    """
    import ipywidgets
    from IPython.display import display

    show_quote(quote, n_test, note)
    train = ipywidgets.Button(description="Train", button_style="primary")
    cancel = ipywidgets.Button(description="Cancel")
    # Made now: what a click displays later would belong to no cell.
    below = display(_message(""), display_id=True)
    buttons = ipywidgets.HBox([train, cancel])
    display(buttons)

    def clicked(button: Any) -> None:
        train.disabled = cancel.disabled = True  # a double click is one job
        if button is cancel:
            below.update(_message("not started; nothing was sent"))
        else:
            below.update(_message("starting ..."))
            _start(on_yes, below)
        buttons.close()

    train.on_click(clicked)
    cancel.on_click(clicked)


def ask_in_words(
    quote: Quote, n_test: int | None = None, note: str = "", *, command: str = "%ft_train NAME"
) -> bool:
    """Print a quote and wait for a typed answer.

    Raises:
        ConfigError: Nobody can be asked; the message repeats `command`, with a yes.
    """
    if not _takes_input():
        raise ConfigError(
            message(
                f"training would send {quote.n_train:,} rows to {quote.host}, and nobody can be "
                "asked here (no input).",
                next_step=f"{command} --yes",
            )
        )
    print(quote_card(quote, n_test, note))
    try:
        answer = input("Train? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _start(on_yes: Callable[[Any], object], display: Any) -> None:
    try:
        on_yes(display)
    except FtmagicError as exc:
        # A click has no cell that could show an exception.
        display.update(_message(f"{type(exc).__name__}: {exc}"))


def _message(words: str) -> Shown:
    if not words:
        return Shown("<span></span>", "")
    return Shown(f'<pre style="white-space:pre-wrap">{render.text(words)}</pre>', words)


def _takes_input() -> bool:
    shell = kernel_shell()
    if shell is None:
        return sys.stdin is not None and sys.stdin.isatty()
    # Set by ipykernel for each execution; nbclient and papermill say no. It has no public name.
    return bool(shell.kernel._allow_stdin)
