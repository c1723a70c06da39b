"""The class list and the files that it comes from: names, prompts, colours, codes."""
