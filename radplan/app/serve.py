"""The app's server: this machine alone, a token for whoever opens the page, one session for all its browsers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.server.auth_provider import AuthProvider
from tornado.web import RequestHandler

from radplan.app.page import POLL, Page
from radplan.app.session import Session
from radplan.app.workspace import LARGEST, Workspace

ADDRESS = "127.0.0.1"
"""The only address that is listened on."""

_COOKIE = "radplan_token"


@dataclass(frozen=True, eq=False)
class Served:
    """A running server.

    Parameters
    ----------
    session : Session
        What its pages show.
    server : object
        Bokeh's server.
    url : str
        With the token; opens the page.
    """

    session: Session
    server: Any
    url: str


class TokenAuth(AuthProvider):  # type: ignore[misc]
    """Lets those in who bring the token in the address once, and afterwards as a cookie; all others get 403.

    Parameters
    ----------
    token : str
        What must be brought.
    """

    def __init__(self, token: str) -> None:
        super().__init__()
        self.token = token

    @property
    def get_user(self) -> Any:
        def user(handler: RequestHandler) -> str | None:
            given = handler.get_query_argument("token", "")
            if given and secrets.compare_digest(given.encode(), self.token.encode()):
                handler.set_cookie(_COOKIE, self.token, httponly=True, samesite="Strict")
                return "owner"
            held = handler.get_cookie(_COOKIE) or ""
            return "owner" if secrets.compare_digest(held.encode(), self.token.encode()) else None

        return user

    @property
    def get_user_async(self) -> Any:
        return None

    @property
    def get_login_url(self) -> Any:
        return None

    @property
    def login_url(self) -> str:
        return "/refused"

    @property
    def login_handler(self) -> type[RequestHandler]:
        return Refused

    @property
    def logout_url(self) -> None:
        return None

    @property
    def logout_handler(self) -> None:
        return None


class Refused(RequestHandler):
    """Says that the token is missing."""

    def get(self) -> None:
        self.set_status(403)
        self.finish("radplan: open the address that the terminal shows; it carries the token of this session.")


def serve(
    folder: str | Path, case: str | None = None, port: int = 0, start: bool = True, threaded: bool = False
) -> Served:
    """Serve the app for a folder until it is interrupted.

    Parameters
    ----------
    folder : path-like
        What may be read and written: cases in it, plans within ``radplan-plans``.
    case : str, optional
        Opened at once: a built-in phantom, or a name in the folder.
    port : int
        0 takes a free one.
    start : bool
        Whether to wait until the server ends; otherwise it is returned, ready to be started.
    threaded : bool
        Whether it runs in a thread of its own, for tests and notebooks.

    Raises
    ------
    FileError
        When the folder is none.
    InputError
        When the case leads outside the folder.
    """
    session = Session(Workspace(Path(folder)))
    token = secrets.token_urlsafe(32)
    if case is not None:
        session.open(case)
    chosen = port or free_port()
    server = pn.serve(
        {"/": lambda: _page(session)},
        port=chosen,
        address=ADDRESS,
        websocket_origin=[f"{ADDRESS}:{chosen}", f"localhost:{chosen}"],
        title="radplan",
        show=False,
        start=threaded,
        verbose=False,
        threaded=threaded,
        auth_provider=TokenAuth(token),
        sign_sessions=True,
        secret_key=secrets.token_urlsafe(32).encode(),
        websocket_max_message_size=2 * LARGEST,
    )
    served = Served(session, server, f"http://{ADDRESS}:{chosen}/?token={token}")
    if start and not threaded:
        print_address(served)
        server.io_loop.start()
    return served


def print_address(served: Served) -> None:
    """Tell the terminal where the page is."""
    import sys

    sys.stdout.write(f"open {served.url}\n(only this machine can; Ctrl-C ends)\n")
    sys.stdout.flush()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def _page(session: Session) -> Any:
    page = Page(session)
    pn.state.add_periodic_callback(page.refresh, period=POLL)
    return page.layout()
