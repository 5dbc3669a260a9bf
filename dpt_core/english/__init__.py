"""English as prompts have it: word lists and what words are."""
