"""Stage `dedup`: of examples that say the same, the best one stays."""
