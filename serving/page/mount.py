"""Put the page into the gateway: Gradio behind the guard, at "/", after every route of the gateway's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

    from serving.service import ChatService
    from tasks.store.identities import Identity

HERE = Path(__file__).parent


def mount_page(app: FastAPI, service: ChatService) -> None:
    """Mount the chat page at "/". Call it last: what the gateway does not answer itself goes to the page's guard.

    The one time that Gradio is imported, some seconds. Reads the domain from the working directory.
    """
    import os

    from tasks.core import layout

    os.environ.update(layout.OFFLINE)  # before the import: Gradio decides there what it may report
    import gradio as gr

    from serving.page.blocks import ChatPage
    from serving.page.examples import domain_examples
    from serving.page.guard import Guard
    from serving.page.handlers import Handlers

    async def who_is_there(request: Request) -> Identity | None:
        return await service.auth.identity(request)

    async def user(request: Request) -> str | None:
        identity = await who_is_there(request)
        return identity.id if identity is not None else None

    title, examples = domain_examples(service.settings.domain)
    blocks = ChatPage(Handlers(service, who_is_there, title, examples)).build()
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth_dependency=user,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=1,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=_theme(),
        css_paths=[HERE / "style.css"],
        js=(HERE / "page.js").read_text(encoding="utf-8"),
    )
    mounted: Any = app.router.routes[-1]
    mounted.app = Guard(mounted.app, who_is_there)


def _theme() -> Any:
    """Calm colours and the machine's own fonts: no font is fetched from anywhere."""
    from gradio.themes import Base

    fonts = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "sans-serif"]
    return Base(
        primary_hue="teal",
        neutral_hue="stone",
        font=fonts,
        font_mono=["ui-monospace", "Noto Sans Mono", "monospace"],
        radius_size="lg",
    ).set(
        body_background_fill="#f7f6f3",
        body_background_fill_dark="#191817",
        button_primary_background_fill="#0f6a60",
        button_primary_background_fill_hover="#0b574f",
        button_primary_background_fill_dark="#14786d",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        input_background_fill="#ffffff",
        input_background_fill_dark="#232220",
    )
