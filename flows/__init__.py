"""WHEN things run: Prefect flows that drive DVC's graph and talk to live systems. They compute nothing themselves."""
