"""A domain made of a folder of people's own files: what is found, frozen, written and tried."""
