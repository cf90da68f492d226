"""WHAT: plain typed functions, a folder a stage. Nothing here knows Prefect, DVC, the command line or the gateway."""
