"""Wrap `Client.send` and `AsyncClient.send` of httpx and httpx2, reversibly.

One wrap at class level sees every client, also those built before it, and every SDK that uses
either module; a module that is imported later is wrapped as it arrives. Seen are POSTs to the
paths in `redirect.PATHS`; everything else passes untouched. An exception raised inside the
recorder never reaches the user's call: it is counted in `scope.faults`. What this cannot see:
answers from a cache, `requests`, aiohttp used directly, gRPC, websockets.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any, NamedTuple

from ftmagic.errors import RoutingError
from ftmagic.wire import redirect, scope, streams
from ftmagic.wire.exchange import Exchange, strip_url
from ftmagic.wire.patching import Patch

MODULES = ("httpx", "httpx2")
"""The HTTP clients that are wrapped."""

PATHS = tuple(path.encode() for path in redirect.PATHS)
"""Requests whose path ends so are calls to a language model."""

_lock = threading.RLock()
_patches: list[Patch] = []


def install() -> None:
    """Wrap both HTTP clients, now or when they are imported, and carry scopes into threads.

    A second call does nothing. Until something is captured or routed, a wrapped `send` costs one
    test.
    """
    with _lock:
        if _hook not in sys.meta_path:
            sys.meta_path.insert(0, _hook)
        scope.install_threads()
        for name in MODULES:
            if name in sys.modules:
                _wrap_module(sys.modules[name])


def uninstall() -> None:
    """Put the original functions back; nothing is captured or routed from here on.

    Where somebody else wrapped `send` after us, their wrapper stays, and ours under it idles.
    """
    with _lock:
        scope.switch.is_on = False
        if _hook in sys.meta_path:
            sys.meta_path.remove(_hook)
        scope.uninstall_threads()
        while _patches:
            _patches.pop().undo()


def is_installed() -> bool:
    """Whether `install` was called and not undone."""
    return _hook in sys.meta_path


class _ImportHook:
    """Wraps an HTTP client right after its import."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find the module as the other finders do, and wrap its loader's last step."""
        if name not in MODULES:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((each for each in found if each is not None), None)
        if spec is not None:
            self._wrap_after(spec.loader)
        return spec

    def _wrap_after(self, loader: Any) -> None:
        try:
            execute = loader.exec_module
            loader.exec_module = lambda module: self._execute(loader, execute, module)
        except AttributeError as exc:  # a loader of another shape must still import
            scope.faults.add("import", exc)

    def _execute(self, loader: Any, execute: Callable[[Any], None], module: Any) -> None:
        del loader.exec_module
        execute(module)
        with _lock:
            if is_installed():
                _wrap_module(module)


_hook = _ImportHook()


def _wrap_module(module: Any) -> None:
    try:
        classes = vars(module)
        if "Client" not in classes:  # its import is still going on
            return
        tees = streams.tee_classes(module)
        _wrap_class(classes["Client"], functools.partial(_make_send, tees.sync))
        _wrap_class(classes["AsyncClient"], functools.partial(_make_async_send, tees.asynchronous))
    except Exception as exc:  # an HTTP client of another shape must still import
        scope.faults.add("import", exc)


def _wrap_class(owner: type, make: Callable[[Patch], Any]) -> None:
    """Wrap a class's `send`, unless our wrapper is what it holds: one wrapper of ours is active."""
    earlier = [patch for patch in _patches if patch.owner is owner]
    if earlier and earlier[-1].is_in_place:
        return
    for patch in earlier:  # somebody wrapped or replaced it since: ours goes on top
        patch.is_active = False
    _patches.append(Patch(owner, "send", make))


def _make_send(tee: Any, patch: Patch) -> Callable[..., Any]:
    original = patch.original

    @functools.wraps(original)
    def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        claimed = scope.claim() if scope.switch.is_on and patch.is_active else None
        sending = None if claimed is None else _begin(claimed, request)
        if sending is None:
            return original(self, request, *args, **kwargs)
        if sending.is_rerouted:
            kwargs["auth"] = None  # the client's own credentials are for another server
        try:
            response = original(self, sending.request, *args, **kwargs)
        except BaseException as exc:
            _failed(sending.exchange, exc)
            raise
        _arrived(sending.exchange, response, tee)
        return response

    return send


def _make_async_send(tee: Any, patch: Patch) -> Callable[..., Any]:
    original = patch.original

    @functools.wraps(original)
    async def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        claimed = scope.claim() if scope.switch.is_on and patch.is_active else None
        sending = None if claimed is None else _begin(claimed, request)
        if sending is None:
            return await original(self, request, *args, **kwargs)
        if sending.is_rerouted:
            kwargs["auth"] = None  # as above
        try:
            response = await original(self, sending.request, *args, **kwargs)
        except BaseException as exc:
            _failed(sending.exchange, exc)
            raise
        _arrived(sending.exchange, response, tee)
        return response

    return send


class _Sending(NamedTuple):
    """What is about to be sent, and the exchange that records it (None when nobody records)."""

    request: Any
    exchange: Exchange | None
    is_rerouted: bool


def _begin(claimed: scope.Claim, request: Any) -> _Sending | None:
    """Decide over a request; None when it is no LLM call, or we failed: then it just passes."""
    try:
        if request.method != "POST":
            return None
        if not request.url.raw_path.partition(b"?")[0].endswith(PATHS):
            return None
    except Exception as exc:  # a request of another shape passes
        scope.faults.add("match", exc, request)
        return None
    rerouted = None if claimed.route is None else _reroute(claimed.route, request)
    sent = request if rerouted is None else rerouted
    exchange = None if claimed.scope is None else _open(claimed.scope, claimed.is_ambient, sent)
    if exchange is None and rerouted is None:
        return None
    return _Sending(sent, exchange, rerouted is not None)


def _reroute(route: scope.Route, request: Any) -> Any:
    """Return the request for the route's endpoint; None to let it pass.

    Raises:
        RoutingError: The route is strict; dressed so that no SDK retries or hides it.
    """
    try:
        body = json.loads(request.content)
        rewrite = functools.partial(redirect.rewrite, request)
        return route.decide(strip_url(str(request.url)), body, rewrite)
    except RoutingError as exc:
        raise redirect.visible(exc) from exc.__cause__
    except Exception as exc:  # the user's call must go through, if not to the tuned model
        scope.faults.add("route", exc, request)
        return None


def _open(owner: scope.Scope, is_ambient: bool, request: Any) -> Exchange | None:
    try:
        tags = scope.current_tags()
        tags = {**owner.tags, **tags} if tags else owner.tags
        return Exchange.begin(owner, request, tags, is_ambient=is_ambient)
    except Exception as exc:  # recording must never hurt the user's call
        scope.faults.add("open", exc, request)
        return None


def _failed(exchange: Exchange | None, exc: BaseException) -> None:
    if exchange is not None:
        streams.note_failure(exchange, exc)
        streams.deliver(exchange)


def _arrived(exchange: Exchange | None, response: Any, tee: Any) -> None:
    """Take a reply that was read, or put a tee on one that will be."""
    if exchange is None:
        return
    try:
        exchange.read_head(response)
        if response.is_stream_consumed:
            exchange.read_whole(response.content)
        else:
            exchange.is_stream = True
            response.stream = tee(response.stream, exchange)
            exchange.scope.open_streams.add(exchange)
            return
    except Exception as exc:  # recording must never hurt the user's call
        scope.faults.add("reply", exc)
        exchange.error = "ftmagic could not read the reply"
    streams.deliver(exchange)
