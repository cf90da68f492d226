"""The inference engine: a process that is started, watched and stopped, and what is asked of it over HTTP."""
