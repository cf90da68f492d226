"""The page as Gradio Blocks: what stands where, and which click does what. The handlers are in handlers.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from serving.page.conversation import Session
from serving.page.handlers import Handlers
from serving.page.texts import LANGUAGES, text

HERE = Path(__file__).parent
MAX_QUESTION = 20_000
FOCUS_QUESTION = "() => { setTimeout(() => document.querySelector('#fw-question textarea')?.focus(), 60); }"
FOCUS_EDITOR = "() => { setTimeout(() => document.querySelector('#fw-editor textarea')?.focus(), 160); }"
HTML_LANGUAGE = "(language) => { document.documentElement.lang = language; }"


class ChatPage:
    """One domain's page. Sessions live in Gradio's state, one for each tab."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def build(self) -> gr.Blocks:
        """Components and events."""
        with gr.Blocks(title=self.handlers.title, analytics_enabled=False, fill_width=True) as blocks:
            self._header()
            self._transcript()
            self._composer()
            self._editor()
            self._wire(blocks)
        return blocks.queue(default_concurrency_limit=None, api_open=False)

    def _header(self) -> None:
        self.session = gr.State(Session())
        # Kept by the browser; it is no secret, so the key that Gradio wants may be known.
        self.remembered = gr.BrowserState("", storage_key="flywheel-language", secret="flywheel")  # noqa: S106
        with gr.Row(elem_id="fw-header"):
            self.heading = gr.HTML(self.handlers.heading("en"), elem_id="fw-heading", js_on_load=None)
            self.language = gr.Radio(
                [(name, code) for code, name in LANGUAGES.items()],
                value="en",
                label=text("language", "en"),
                show_label=False,
                container=False,
                elem_id="fw-language",
                min_width=150,
                scale=0,
            )
            self.new = gr.Button(text("new_conversation", "en"), size="sm", elem_id="fw-new", scale=0, min_width=150)

    def _transcript(self) -> None:
        script = (HERE / "transcript.js").read_text(encoding="utf-8")
        with gr.Column(elem_id="fw-conversation"):
            self.transcript = gr.HTML(
                self.handlers.draw(Session()),
                js_on_load=script,
                apply_default_css=False,
                autoscroll=True,
                elem_id="fw-transcript",
            )

    def _composer(self) -> None:
        with gr.Column(elem_id="fw-composer", elem_classes="fw-dock") as self.composer, gr.Row():
            self.question = gr.Textbox(
                label=text("question", "en"),
                placeholder=text("question_placeholder", "en"),
                show_label=False,
                container=False,
                lines=1,
                max_lines=8,
                max_length=MAX_QUESTION,
                autofocus=True,
                elem_id="fw-question",
                scale=1,
            )
            self.send = gr.Button(text("send", "en"), variant="primary", elem_id="fw-send", scale=0, min_width=96)
            self.stop = gr.Button(
                text("stop", "en"), variant="stop", elem_id="fw-stop", scale=0, min_width=96, visible=False
            )

    def _editor(self) -> None:
        with gr.Column(elem_id="fw-editor", elem_classes="fw-dock", visible=False) as self.editor:
            self.words = gr.Textbox(
                label=text("correction_label", "en"), lines=5, max_lines=12, max_length=MAX_QUESTION, elem_id="fw-words"
            )
            with gr.Row(elem_id="fw-editor-buttons"):
                self.cancel = gr.Button(text("cancel", "en"), elem_id="fw-cancel", scale=0, min_width=96)
                self.save = gr.Button(
                    text("save_correction", "en"), variant="primary", elem_id="fw-save", scale=0, min_width=160
                )

    def _wire(self, blocks: gr.Blocks) -> None:
        """Events. No progress bars over the page, and no API page for it."""
        do, session = self.handlers, self.session
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        asking = [self.transcript, self.question, self.send, self.stop]
        editing = [self.transcript, self.composer, self.editor, self.words, self.save]
        worded = [self.transcript, self.heading, self.language, self.remembered, self.new, self.question, self.send,
                  self.stop, self.words, self.cancel, self.save]  # fmt: skip

        def then(event: Any, script: str, inputs: list[Any] | None = None) -> None:
            event.then(None, inputs, None, js=script, **quiet)

        then(blocks.load(do.open, [session, self.remembered], worded, **quiet), HTML_LANGUAGE, [self.language])
        switched = self.language.input(do.switch, [session, self.language], worded, **quiet)
        then(switched, HTML_LANGUAGE, [self.language])
        asked = gr.on([self.question.submit, self.send.click], do.ask, [session, self.question], asking, **quiet)
        then(asked, FOCUS_QUESTION)
        self.transcript.ask(do.ask_by_button, [session], asking, **quiet)
        self.stop.click(do.halt, [session], None, **quiet)
        then(self.new.click(do.begin, [session], [*editing, self.question], **quiet), FOCUS_QUESTION)
        self.transcript.judge(do.judge, [session], [self.transcript], trigger_mode="multiple", **quiet)
        self.transcript.choose(do.choose, [session], [self.transcript], **quiet)
        then(self.transcript.edit(do.edit, [session], editing, **quiet), FOCUS_EDITOR)
        written = gr.on([self.save.click, self.words.submit], do.write, [session, self.words], editing, **quiet)
        then(written, FOCUS_QUESTION)
        then(self.cancel.click(do.close, [session], editing, **quiet), FOCUS_QUESTION)
