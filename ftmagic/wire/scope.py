"""Which capture, tags and route a call belongs to.

Three context variables travel with the code that a cell starts: through await, gather, to_thread
and tasks by Python itself, through `ThreadPoolExecutor.submit` and `Thread.start` by two patches
that are put back on uninstall. A call that none of them reaches is ambient: it belongs to the
innermost open capture and says so. This module knows nothing of HTTP.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ftmagic.types import Endpoint, Json
from ftmagic.wire.exchange import Exchange, one_line
from ftmagic.wire.patching import Patch


class Route(Protocol):
    """Decides which server answers a call, and counts what it decided."""

    def decide(self, url: str, body: Json, rewrite: Callable[[Endpoint], Any]) -> Any:
        """Return the request to send instead, or None to let the call pass.

        Args:
            url: Where the call would go, without query and credentials.
            body: Its JSON body.
            rewrite: Makes the request for another server; raises when it cannot.

        Raises:
            RoutingError: It may not go anywhere else and cannot go there; the user sees this.
        """


@dataclass(eq=False)
class Scope:
    """One capture: where its exchanges are delivered.

    Attributes:
        id: Names it in messages (the run's id).
        sink: Called once for each finished exchange, on the thread of the call: must be quick.
        tags: Put on every call, under `tag(...)`.
    """

    id: str
    sink: Callable[[Exchange], object] = field(repr=False)
    tags: Mapping[str, str] = field(default_factory=dict)
    open_streams: set[Exchange] = field(default_factory=set, repr=False)


class Faults:
    """What went wrong inside the recorder: counted, never raised.

    Attributes:
        count: Since the process started.
        last: The latest, as 'hook: Error: text'.
        by_hook: Counts by the point where it happened.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.count = 0
        self.last = ""
        self.by_hook: dict[str, int] = {}

    def add(self, hook: str, exc: BaseException, request: Any = None) -> None:
        """Count one fault; the headers of `request` are cut out of its text."""
        self.count += 1
        self.by_hook[hook] = self.by_hook.get(hook, 0) + 1
        self.last = f"{hook}: {one_line(exc, request)}"


faults = Faults()
"""Faults of this process; read the count before and after a cell."""


class Switch:
    """Whether anything was captured or routed since `install`: the first test of the hot path."""

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        """Start off."""
        self.is_on = False


switch = Switch()

_NO_TAGS: Mapping[str, str] = {}
_scope: ContextVar[Scope | None] = ContextVar("ftmagic_scope", default=None)
_tags: ContextVar[Mapping[str, str]] = ContextVar("ftmagic_tags", default=_NO_TAGS)
_route: ContextVar[Route | None] = ContextVar("ftmagic_route", default=None)

_lock = threading.Lock()
_open_scopes: tuple[Scope, ...] = ()  # innermost last; replaced, never changed


class Entry(NamedTuple):
    """What `leave` needs to undo an `enter`."""

    scope: Scope
    token: Token[Scope | None]


def enter(scope: Scope) -> Entry:
    """Open a capture: calls from here on, in this context, are its own."""
    global _open_scopes
    with _lock:
        _open_scopes = (*_open_scopes, scope)
    switch.is_on = True
    return Entry(scope, _scope.set(scope))


def leave(entry: Entry) -> None:
    """Close a capture. Code that it started and that still runs keeps its token."""
    global _open_scopes
    with _lock:
        _open_scopes = tuple(scope for scope in _open_scopes if scope is not entry.scope)
    _reset(_scope, entry.token)


def set_current(scope: Scope | None) -> None:
    """Set this context's capture; `None` at the start of a cell stops a leaked token."""
    _scope.set(scope)


def current() -> Scope | None:
    """Return the capture whose token this context carries, open or not."""
    return _scope.get()


def snapshot_open(scope: Scope) -> list[Exchange]:
    """Copy the streams of a scope that have not ended, as partial exchanges.

    A stream that ends later is still delivered to the sink, under the same id.
    """
    return [exchange.snapshot() for exchange in tuple(scope.open_streams)]


IGNORED = Scope("ignored", sink=lambda exchange: None)
"""The scope of calls that ftmagic makes for itself: neither recorded nor sent elsewhere."""


@contextmanager
def ignore_calls() -> Iterator[None]:
    """Neither record nor reroute the calls made inside."""
    token = _scope.set(IGNORED)
    try:
        yield
    finally:
        _reset(_scope, token)


def push_tags(tags: Mapping[str, str]) -> Token[Mapping[str, str]]:
    """Add tags to the calls that this context makes; undo with `pop_tags`."""
    return _tags.set({**_tags.get(), **tags})


def pop_tags(token: Token[Mapping[str, str]]) -> None:
    """Go back to the tags from before `push_tags`."""
    _reset(_tags, token, _NO_TAGS)


def current_tags() -> Mapping[str, str]:
    """Return the tags of this context; do not change the mapping."""
    return _tags.get()


def push_route(route: Route | None) -> Token[Route | None]:
    """Let `route` decide over the calls that this context makes; undo with `pop_route`."""
    switch.is_on = True
    return _route.set(route)


def pop_route(token: Token[Route | None]) -> None:
    """Go back to the route from before `push_route`."""
    _reset(_route, token)


def current_route() -> Route | None:
    """Return the route of this context."""
    return _route.get()


def set_route(route: Route | None) -> None:
    """Set this context's route; `None` at the start of a cell stops a leaked one."""
    if route is not None:
        switch.is_on = True
    _route.set(route)


def _reset(variable: ContextVar[Any], token: Token[Any], default: object = None) -> None:
    try:
        variable.reset(token)
    except ValueError:  # a cell may end in another context than it began in
        old = token.old_value
        variable.set(default if old is Token.MISSING else old)
    except RuntimeError:  # used already: leaving twice does no harm
        pass


class Carried(NamedTuple):
    """The three variables of one context, to be set in another."""

    scope: Scope | None
    tags: Mapping[str, str]
    route: Route | None

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function with these values, then put the thread's own back."""
        tokens = (_scope.set(self.scope), _tags.set(self.tags), _route.set(self.route))
        try:
            return function(*args, **kwargs)
        finally:
            _reset(_scope, tokens[0])
            _reset(_tags, tokens[1], _NO_TAGS)
            _reset(_route, tokens[2])


def carry() -> Carried:
    """Take this context's values along."""
    return Carried(_scope.get(), _tags.get(), _route.get())


class Claim(NamedTuple):
    """Who wants a call: a capture, a route, or both.

    Attributes:
        scope: The capture; None when there is none.
        is_ambient: It was found by being open, not by a token.
        route: The route; None when there is none.
    """

    scope: Scope | None
    is_ambient: bool
    route: Route | None


def claim() -> Claim | None:
    """Say whose the call is that this context is about to make; None when it is nobody's."""
    scope, route = _scope.get(), _route.get()
    if scope is not None:
        return None if scope is IGNORED else Claim(scope, False, route)
    if _open_scopes:
        return Claim(_open_scopes[-1], True, route)
    return None if route is None else Claim(None, False, route)


_EMPTY = Carried(None, _NO_TAGS, None)
_thread_patches: list[Patch] = []


def install_threads() -> None:
    """Carry our variables into pools and threads; a second call does nothing."""
    if not _thread_patches:
        _thread_patches.append(Patch(ThreadPoolExecutor, "submit", _make_submit))
        _thread_patches.append(Patch(threading.Thread, "start", _make_start))


def uninstall_threads() -> None:
    """Put the original `submit` and `start` back."""
    while _thread_patches:
        _thread_patches.pop().undo()


def _make_submit(patch: Patch) -> Any:
    original = patch.original

    @functools.wraps(original)
    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        # Without a token too: the pool's thread may carry one of the cell that started it.
        if not (switch.is_on and patch.is_active):
            return original(self, fn, *args, **kwargs)
        return original(self, functools.partial(carry().call, fn), *args, **kwargs)

    return submit


def _make_start(patch: Patch) -> Any:
    original = patch.original

    @functools.wraps(original)
    def start(self: threading.Thread) -> None:
        carried = carry() if switch.is_on and patch.is_active else _EMPTY
        if carried == _EMPTY:
            original(self)
            return
        restore = _try_wrap_run(self, carried)
        try:
            original(self)
        except BaseException:
            restore()
            raise

    return start


def _try_wrap_run(thread: threading.Thread, carried: Carried) -> Callable[[], None]:
    try:
        return _wrap_run(thread, carried)
    except Exception as exc:  # a fault of ours must not keep the user's thread from starting
        faults.add("thread", exc)
        return lambda: None


def _wrap_run(thread: threading.Thread, carried: Carried) -> Callable[[], None]:
    """Make a thread's `run` set our variables first, and take itself away as it begins."""
    attributes = vars(thread)
    had_own_run = "run" in attributes
    run = thread.run

    def restore() -> None:
        if had_own_run:
            attributes["run"] = run
        else:
            attributes.pop("run", None)

    def run_carried() -> None:
        restore()
        carried.call(run)

    attributes["run"] = run_carried
    return restore
