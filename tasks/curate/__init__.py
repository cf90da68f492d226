"""Choose examples: validate, deduplicate, select, mix, and account for every one of them."""
