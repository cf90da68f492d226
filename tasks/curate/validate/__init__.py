"""Stage `validate`: rows that may go on."""
