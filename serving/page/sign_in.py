"""The sign-in page: one form for the access key, whole in itself, with no script and no outside request."""

from __future__ import annotations

from html import escape

from serving.page.texts import text

PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="same-origin">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --paper: #f7f6f3; --card: #fff; --ink: #24221f; --soft: #6b675f; --line: #d9d5cc;
  --accent: #0f6a60; --alarm: #a3261b; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #191817; --card: #232220; --ink: #eceae6; --soft: #aaa59b;
  --line: #45423d; --accent: #4db5a6; --alarm: #f08a7e; }} }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; }}
main {{ width: min(24rem, calc(100vw - 5rem)); padding: 2rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 14px; }}
h1 {{ margin: 0 0 .25rem; font-size: 1.35rem; }}
p {{ margin: 0 0 1.25rem; color: var(--soft); }}
label {{ display: block; margin-bottom: .35rem; font-weight: 600; }}
input, button {{ box-sizing: border-box; width: 100%; padding: .65rem .75rem; border-radius: 9px; font: inherit; }}
input {{ border: 1px solid var(--line); background: var(--paper); color: inherit; }}
button {{ margin-top: 1rem; border: 0; background: var(--accent); color: var(--card); font-weight: 600;
  cursor: pointer; }}
:focus-visible {{ outline: 3px solid var(--accent); outline-offset: 2px; }}
.error {{ color: var(--alarm); font-weight: 600; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{hint}</p>
{error}<form action="/login" method="post">
<label for="key">{label}</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus maxlength="200">
<button type="submit">{title}</button>
</form>
</main>
</body>
</html>
"""


def sign_in_page(language: str, error: str | None = None) -> str:
    """The page as HTML; `error` is shown as text, whatever it holds."""
    alarm = f'<p class="error" role="alert">{escape(error)}</p>\n' if error else ""
    return PAGE.format(
        language=language,
        title=text("sign_in", language),
        hint=text("sign_in_hint", language),
        label=text("access_key", language),
        error=alarm,
    )
