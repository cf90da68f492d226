"""Stage `champion`: what a candidate is judged against."""
