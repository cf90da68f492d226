"""Stage `retriever`."""
