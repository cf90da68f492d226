"""The chat page, where people ask, judge and correct: static files that talk to the gateway's public API alone.

The page holds no truth: answers and feedback are durable in the store before they are shown as such.
"""
