"""The chat page: a Gradio page in the gateway, where people ask, judge and correct.

`mount_page` is all the gateway needs; Gradio is imported only when it is called. The page holds no truth: answers and
feedback are durable in the store before they are shown as such, and a conversation lives as long as its browser tab.
"""

from serving.page.mount import mount_page
from serving.page.sign_in import sign_in_page

__all__ = ["mount_page", "sign_in_page"]
