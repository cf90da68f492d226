"""Stage `feedback`: what users said becomes training data."""
