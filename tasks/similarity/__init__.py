"""How alike two texts are: by shared characters, by meaning; leaks of evaluation items."""
