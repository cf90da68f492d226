"""Stage `mix`: replay, the leak guard, the split."""
