"""`create_app(store)`: the pages on NiceGUI, each kept up to date while somebody looks at it.

NiceGUI keeps its own state per process, so a process can serve one such application only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from importlib import resources

from fastapi import FastAPI
from nicegui import APIRouter, ui

from latlas_coordinator.dashboard import tables, views
from latlas_coordinator.handlers.latency_models import ModelCache
from latlas_coordinator.storage import Store
from latlas_ops.errors import LatlasError

_RESPONSE_TIMEOUT_S = 30.0
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><g fill="#0067a5">'
    '<rect width="7" height="7" rx="1" opacity=".3"/><rect x="9" width="7" height="7" rx="1"/>'
    '<rect y="9" width="7" height="7" rx="1" opacity=".7"/>'
    '<rect x="9" y="9" width="7" height="7" rx="1" opacity=".45"/></g></svg>'
)


def create_app(
    store: Store,
    *,
    connect_to: str = "HOST:PORT",
    refresh_s: float = 2.0,
    now_ns: Callable[[], int] = time.time_ns,
) -> FastAPI:
    """The coordinator's web page on a store, as an ASGI application. It only reads.

    Everything a browser needs is served from here; nothing is fetched from elsewhere.

    Args:
        store: what is shown.
        connect_to: address that agents dial, for the hint where there is no device yet.
        refresh_s: time between two looks at the store, per open page.
        now_ns: the clock, Unix time.
    """
    router = APIRouter()
    models = ModelCache()
    page = partial(ui.page, api_router=router, response_timeout=_RESPONSE_TIMEOUT_S)
    live = partial(_live, refresh_s=refresh_s)

    @page("/")
    async def show_devices() -> None:
        _frame("/")
        await live(lambda: views.devices(store.list_devices(), now_ns(), connect_to))

    @page("/campaigns")
    async def show_campaigns() -> None:
        _frame("/campaigns")
        await live(lambda: views.campaigns(store.list_campaigns(), now_ns()))

    @page("/models")
    async def show_models() -> None:
        _frame("/models")
        await live(lambda: views.latency_models(store.list_latency_models(), now_ns()))

    @page("/tables")
    async def show_tables(model: str = "", resolution: str = "") -> None:
        _frame("/tables")
        await live(lambda: tables.render(store, models, model, resolution))

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(router)
    ui.run_with(
        app,
        title="Latlas",
        favicon=_ICON,
        dark=None,
        tailwind=False,
        show_welcome_message=False,
    )
    return app


def _frame(path: str) -> None:
    """What every page has: its style and its head."""
    style = resources.files("latlas_coordinator.dashboard").joinpath("dashboard.css")
    ui.add_css(style.read_text(encoding="utf-8"))
    ui.html(views.navigation(path), sanitize=False)


async def _live(render: Callable[[], str], *, refresh_s: float) -> None:
    """HTML that is rendered anew in a thread every `refresh_s`, and sent where it changed."""

    def rendered() -> str:
        try:
            return render()
        except LatlasError as error:
            return views.failure(str(error))

    shown = ui.html(await asyncio.to_thread(rendered), tag="section", sanitize=False)
    shown.classes("la-page")

    async def refresh() -> None:
        shown.set_content(await asyncio.to_thread(rendered))

    ui.timer(refresh_s, refresh)
