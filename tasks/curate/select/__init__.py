"""Stage `select`: which examples are trained on."""
