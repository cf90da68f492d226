"""What every room builds on: errors, files, layout, settings, records and tables, pointers, intervals."""
