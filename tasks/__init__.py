"""WHAT: plain typed functions, one module a stage. Nothing here knows Prefect, DVC, the command line or the gateway."""
