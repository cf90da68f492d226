"""ONLINE: the gateway, one process that speaks OpenAI's HTTP and holds the chat page."""
