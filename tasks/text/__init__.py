"""Text and tokens: the one renderer of prompts, languages, markup, personal data, grounding."""
